// Keys and tokens of a NATS server whose users have credentials: an operator, a system account, an account with JetStream
// and two users, by NATS's own library. Prints the server's configuration and the first user's .creds file, and the configuration
// by which that user is revoked with the .creds file of the second, as JSON.
// node credentials.js
const { createAccount, createOperator, createUser } = require('@nats-io/nkeys');

const encoded = (object) => Buffer.from(JSON.stringify(object)).toString('base64url');

function token(issuer, name, subject, nats) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { jti: subject.getPublicKey(), iat: now, iss: issuer.getPublicKey(), name, sub: subject.getPublicKey(), nats };
  const unsigned = `${encoded({ typ: 'JWT', alg: 'ed25519-nkey' })}.${encoded(claims)}`;
  return `${unsigned}.${Buffer.from(issuer.sign(Buffer.from(unsigned))).toString('base64url')}`;
}

const operator = createOperator();
const system = createAccount();
const account = createAccount();
const [user, next] = [createUser(), createUser()];
const limits = {
  subs: -1, data: -1, payload: -1, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1,
  mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1,
};
const operatorToken = token(operator, 'operator', operator, { type: 'operator', version: 2, system_account: system.getPublicKey() });
const systemToken = token(operator, 'SYS', system, { type: 'account', version: 2, limits: { ...limits, streams: 0, mem_storage: 0, disk_storage: 0, consumer: 0 } });
const accountToken = (revocations) => token(operator, 'shop', account, { type: 'account', version: 2, limits, revocations });

const config = (revocations) => `
operator: ${operatorToken}
system_account: ${system.getPublicKey()}
resolver: MEMORY
resolver_preload: {
  ${system.getPublicKey()}: ${systemToken}
  ${account.getPublicKey()}: ${accountToken(revocations)}
}
`;
const creds = (of) => `-----BEGIN NATS USER JWT-----
${token(account, 'orders', of, { type: 'user', version: 2, subs: -1, data: -1, payload: -1, pub: {}, sub: {} })}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
${Buffer.from(of.getSeed()).toString()}
------END USER NKEY SEED------
`;
// Those that were issued until then.
const revoked = { [user.getPublicKey()]: Math.floor(Date.now() / 1000) + 60 };
console.log(JSON.stringify({
  config: config({}), creds: creds(user), next: { config: config(revoked), creds: creds(next) },
}));
