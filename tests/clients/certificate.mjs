// A certificate that is right in every way, except that nobody knows who made it.
import { execFileSync } from "node:child_process";

export function selfSigned() {
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
  const leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
  const pem = execFileSync("openssl", ["req", ...kind, ...names, ...leaf, "-keyout", "-", "-out", "-"], { encoding: "utf8", stdio: "pipe" });
  return { key: pem, cert: pem };
}
