//! Numbers that look random and are the same on every run and release.

/// FNV-1a, 64 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>. The standard library's hasher may
/// change with any release.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
pub struct Dice(u64);

impl Dice {
    pub fn of(text: &str) -> Self {
        Self(hash(text))
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end.max(1) as u64).unwrap_or_default()
    }

    /// From -1 to 1.
    pub fn signed(&mut self) -> f32 {
        let unit = (self.roll() >> 40) as f32 / (1u64 << 24) as f32;
        unit * 2.0 - 1.0
    }

    /// `length` letters and digits, as in an id of Stripe's.
    pub fn letters(&mut self, length: usize) -> String {
        const ALPHABET: &[u8; 62] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..length)
            .map(|_| char::from(ALPHABET[self.below(ALPHABET.len())]))
            .collect()
    }
}

/// A new id, as `cus_9s6XKzkNRiz8i3`.
pub fn fresh(prefix: &str, length: usize) -> String {
    let letters = Dice::of(&uuid::Uuid::new_v4().to_string()).letters(length);
    format!("{prefix}_{letters}")
}
