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
  useEffect(() => {
    const { data } = auth.onAuthStateChange((_, session) => setSession(session));
    return () => data.subscription.unsubscribe();
  }, []);
  if (session === undefined) return <p>One moment</p>;

  const press = (act, done) => async () => {
    const { data, error } = await act();
    setSaid(error ? `Refused: ${error.code ?? error.message}` : done(data ?? {}));
  };
  return (
    <main>
      {session ? <SignedIn user={session.user} press={press} /> : <SignedOut press={press} />}
      <output>{said}</output>
    </main>
  );
}

function SignedOut({ press }) {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const nothing = () => "";
  const oauth = (provider) => () => auth.signInWithOAuth({ provider, options: { redirectTo: back } });
  return (
    <form onSubmit={(event) => event.preventDefault()}>
      <input aria-label="E-mail" type="email" value={email} onChange={(event) => setEmail(event.target.value)} />
      <input aria-label="Password" type="password" value={password} onChange={(event) => setPassword(event.target.value)} />
      <button onClick={press(() => auth.signInWithPassword({ email, password }), nothing)}>Sign in</button>
      <button onClick={press(() => auth.signUp({ email, password, options: { emailRedirectTo: back } }), ({ session }) => (session ? "" : "Look into your mail"))}>Sign up</button>
      <button onClick={press(() => auth.signInWithPasskey(), nothing)}>Sign in with a passkey</button>
      {Object.entries(providers).map(([provider, name]) => (
        <button key={provider} onClick={press(oauth(provider), nothing)}>
          Sign in with {name}
        </button>
      ))}
    </form>
  );
}

function SignedIn({ user, press }) {
  return (
    <>
      <h1>Hello {user.email}</h1>
      <p data-testid="id">{user.id}</p>
      <button onClick={press(() => auth.registerPasskey(), ({ id }) => `Passkey ${id}`)}>Add a passkey</button>
      <button onClick={press(() => auth.mfa.webauthn.register({ friendlyName: "key" }), () => "The key counts")}>Add a security key</button>
      <button onClick={press(proveKey, () => "The key is proved")}>Prove the security key</button>
      <button onClick={press(() => auth.linkIdentity({ provider: "github", options: { redirectTo: back } }), () => "")}>Link GitHub</button>
      <p>Known by {user.identities.map(({ provider }) => provider).join(", ")}</p>
      <button onClick={press(() => auth.signOut(), () => "")}>Sign out</button>
    </>
  );
}

async function proveKey() {
  const { data, error } = await auth.mfa.listFactors();
  return error ? { error } : auth.mfa.webauthn.authenticate({ factorId: data.webauthn[0].id });
}

createRoot(document.getElementById("page")).render(<Page />);
