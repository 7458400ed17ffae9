/// What an authenticator signs. <https://www.w3.org/TR/webauthn-3/#sctn-authenticator-data>.
pub struct AuthenticatorData<'a> {
    pub rp_id_hash: &'a [u8],
    pub user_present: bool,
    pub user_verified: bool,
    pub backup_eligible: bool,
    pub backed_up: bool,
    pub sign_count: u32,
    /// With a new credential alone.
    pub credential: Option<Credential<'a>>,
}

pub struct Credential<'a> {
    pub aaguid: [u8; 16],
    pub id: &'a [u8],
    /// COSE.
    pub public_key: &'a [u8],
}

const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const HAS_CREDENTIAL: u8 = 1 << 6;
const HAS_EXTENSIONS: u8 = 1 << 7;

const MAX_CREDENTIAL_ID: usize = 1023;

impl<'a> AuthenticatorData<'a> {
    /// `None` unless every byte has its place.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let rp_id_hash = take(&mut rest, 32)?;
        let flags = take(&mut rest, 1)?[0];
        let sign_count = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
        let has = |flag| flags & flag != 0;
        let credential = match has(HAS_CREDENTIAL) {
            true => Some(Credential::parse(&mut rest)?),
            false => None,
        };
        if has(HAS_EXTENSIONS) {
            map(&mut rest)?;
        }
        rest.is_empty().then_some(Self {
            rp_id_hash,
            user_present: has(USER_PRESENT),
            user_verified: has(USER_VERIFIED),
            backup_eligible: has(BACKUP_ELIGIBLE),
            backed_up: has(BACKED_UP),
            sign_count,
            credential,
        })
    }
}

impl<'a> Credential<'a> {
    fn parse(rest: &mut &'a [u8]) -> Option<Self> {
        let aaguid = take(rest, 16)?.try_into().ok()?;
        let length = u16::from_be_bytes(take(rest, 2)?.try_into().ok()?).into();
        if !(1..=MAX_CREDENTIAL_ID).contains(&length) {
            return None;
        }
        Some(Self {
            aaguid,
            id: take(rest, length)?,
            public_key: map(rest)?,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// The bytes of a CBOR map; nothing says where it ends but itself.
fn map<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut cbor = minicbor::Decoder::new(rest);
    for _ in 0..cbor.map().ok()?? {
        cbor.skip().ok()?;
        cbor.skip().ok()?;
    }
    take(rest, cbor.position())
}
