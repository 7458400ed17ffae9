// A page as a product would have it: supabase-js and React, nothing of ours.
import { createClient } from "@supabase/supabase-js";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const { auth } = createClient(SERVER, "anon", { auth: { flowType: "pkce" } });
const providers = { google: "Google", apple: "Apple", github: "GitHub", oidc: "OpenID Connect" };
const back = `${location.origin}/`;

function Page() {
  const [session, setSession] = useState();
  const [said, setSaid] = useState("");
  const [recovers, setRecovers] = useState(false);
  useEffect(() => {
    const { data } = auth.onAuthStateChange((event, session) => {
      if (event === "PASSWORD_RECOVERY") setRecovers(true);
      setSession(session);
    });
    return () => data.subscription.unsubscribe();
  }, []);
  if (session === undefined) return <p>One moment</p>;

  const press = (act, done) => async () => {
    const { data, error } = await act();
    setSaid(error ? `Refused: ${error.code ?? error.message}` : done(data ?? {}));
  };
  return (
    <main>
      {session && recovers && <h2>Choose a new password</h2>}
      {session ? <SignedIn session={session} press={press} /> : <SignedOut press={press} />}
      <output>{said}</output>
    </main>
  );
}

function SignedOut({ press }) {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const nothing = () => "";
  const mailed = () => "Look into your mail";
  const oauth = (provider) => () => auth.signInWithOAuth({ provider, options: { redirectTo: back } });
  return (
    <form onSubmit={(event) => event.preventDefault()}>
      <input aria-label="E-mail" type="email" value={email} onChange={(event) => setEmail(event.target.value)} />
      <input aria-label="Password" type="password" value={password} onChange={(event) => setPassword(event.target.value)} />
      <button onClick={press(() => auth.signInWithPassword({ email, password }), nothing)}>Sign in</button>
      <button onClick={press(() => auth.signUp({ email, password, options: { emailRedirectTo: back } }), ({ session }) => (session ? "" : "Look into your mail"))}>Sign up</button>
      <button onClick={press(() => auth.signInWithOtp({ email, options: { emailRedirectTo: back } }), mailed)}>Mail me a link</button>
      <button onClick={press(() => auth.resetPasswordForEmail(email, { redirectTo: back }), mailed)}>I forgot my password</button>
      <input aria-label="Code" value={code} onChange={(event) => setCode(event.target.value)} />
      <button onClick={press(() => auth.verifyOtp({ email, token: code, type: "email" }), nothing)}>Sign in with the code</button>
      <button onClick={press(() => auth.signInAnonymously(), nothing)}>Look around first</button>
      <button onClick={press(() => auth.signInWithPasskey(), nothing)}>Sign in with a passkey</button>
      {Object.entries(providers).map(([provider, name]) => (
        <button key={provider} onClick={press(oauth(provider), nothing)}>
          Sign in with {name}
        </button>
      ))}
    </form>
  );
}

function SignedIn({ session, press }) {
  const { user, access_token: token } = session;
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  return (
    <>
      <h1>Hello {user.email || "stranger"}</h1>
      <p data-testid="id">{user.id}</p>
      <p>Proved at {claims(token).aal}</p>
      <input aria-label="New e-mail" type="email" value={email} onChange={(event) => setEmail(event.target.value)} />
      <button onClick={press(() => auth.updateUser({ email }, { emailRedirectTo: back }), () => "Look into your mail")}>Change the e-mail</button>
      <input aria-label="New password" type="password" value={password} onChange={(event) => setPassword(event.target.value)} />
      <button onClick={press(() => auth.updateUser({ password }), () => "The password is changed")}>Change the password</button>
      <AuthenticatorApp press={press} />
      <Sessions token={token} press={press} />
      <button onClick={press(() => auth.registerPasskey(), ({ id }) => `Passkey ${id}`)}>Add a passkey</button>
      <button onClick={press(() => auth.mfa.webauthn.register({ friendlyName: "key" }), () => "The key counts")}>Add a security key</button>
      <button onClick={press(proveKey, () => "The key is proved")}>Prove the security key</button>
      <button onClick={press(() => auth.linkIdentity({ provider: "github", options: { redirectTo: back } }), () => "")}>Link GitHub</button>
      <p>Known by {user.identities.map(({ provider }) => provider).join(", ")}</p>
      <button onClick={press(() => auth.signOut(), () => "")}>Sign out</button>
    </>
  );
}

function AuthenticatorApp({ press }) {
  const [app, setApp] = useState();
  const [code, setCode] = useState("");
  const enroll = async () => {
    const answer = await auth.mfa.enroll({ factorType: "totp", friendlyName: "app" });
    setApp(answer.data);
    return answer;
  };
  const prove = async () => {
    const { data, error } = await auth.mfa.listFactors();
    if (error) return { error };
    const { id: factorId } = data.all.find(({ factor_type }) => factor_type === "totp");
    return auth.mfa.challengeAndVerify({ factorId, code });
  };
  return (
    <section>
      <button onClick={press(enroll, () => "Scan it")}>Add an authenticator app</button>
      {app && <img alt="To scan" src={app.totp.qr_code} />}
      {app && <code data-testid="secret">{app.totp.secret}</code>}
      <input aria-label="Code of the app" value={code} onChange={(event) => setCode(event.target.value)} />
      <button onClick={press(prove, () => "The app is proved")}>Prove the app</button>
    </section>
  );
}

/** What supabase-js has no words for. */
function Sessions({ token, press }) {
  const [sessions, setSessions] = useState([]);
  const ask = async (method, path) => {
    const answer = await fetch(`${SERVER}/auth/v1/sessions${path}`, { method, headers: { authorization: `Bearer ${token}` } });
    const body = answer.status === 204 ? {} : await answer.json();
    return answer.ok ? { data: body } : { error: body };
  };
  const list = async () => {
    const answer = await ask("GET", "");
    if (answer.data) setSessions(answer.data.data);
    return answer;
  };
  const end = (id) => async () => {
    const ended = await ask("DELETE", `/${id}`);
    return ended.error ? ended : list();
  };
  return (
    <section>
      <button onClick={press(list, () => "")}>Where am I signed in?</button>
      <button onClick={press(() => auth.getUser(), () => "Still signed in")}>Am I signed in?</button>
      <ul>
        {sessions.map(({ id, device, current }) => (
          <li key={id}>
            {device} {current ? "(here)" : <button onClick={press(end(id), () => "It is ended")}>End</button>}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** What an access token says. */
function claims(token) {
  return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
}

async function proveKey() {
  const { data, error } = await auth.mfa.listFactors();
  return error ? { error } : auth.mfa.webauthn.authenticate({ factorId: data.webauthn[0].id });
}

createRoot(document.getElementById("page")).render(<Page />);
