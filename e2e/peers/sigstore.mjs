// Signs an image in a registry with the Sigstore project's own JavaScript libraries
// (`@sigstore/sign` makes bundles, `@sigstore/oci` pushes) and Node's OpenSSL.
//
//   node sigstore.mjs attest IMAGE DIGEST KEY PREDICATE_TYPE BYTES
//       pushes a bundle that refers to the image: a statement of this type about it, with
//       BYTES bytes of predicate
//   node sigstore.mjs sign IMAGE DIGEST KEY
//       pushes a signature as cosign 2 does, under the tag sha256-….sig
//
// KEY: a file with a private key (PEM). LOGIN: `name:password` of the registry. PEERS: the
// folder of `node_modules`. NODE_EXTRA_CA_CERTS: the authority of the registry.

import { createRequire } from 'node:module';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const modules = path.join(process.env.PEERS, 'node_modules');
const require = createRequire(path.join(modules, 'x.js'));
const { DSSEBundleBuilder } = require('@sigstore/sign');
const { bundleToJSON } = require('@sigstore/bundle');
const { attachArtifactToImage } = require('@sigstore/oci');
// Its client of registries, which it does not export.
const { RegistryClient } = require(path.join(modules, '@sigstore/oci/dist/registry.js'));

const [command, image, digest, keyFile, ...more] = process.argv.slice(2);
const [username, password] = process.env.LOGIN.split(':');
const credentials = { username, password };
const key = crypto.createPrivateKey(fs.readFileSync(keyFile));
const sign = (bytes) => crypto.sign('sha256', bytes, key);

async function attest(predicateType, bytes) {
  const publicKey = crypto.createPublicKey(key).export({ format: 'pem', type: 'spki' });
  const signer = {
    sign: async (data) => ({
      signature: sign(data),
      key: { $case: 'publicKey', publicKey, hint: '' },
    }),
  };
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name: image, digest: { sha256: digest.replace('sha256:', '') } }],
    predicateType,
    predicate: { filling: crypto.randomBytes(Number(bytes) / 2).toString('hex') },
  };
  const bundle = await new DSSEBundleBuilder({ signer, witnesses: [] }).create({
    data: Buffer.from(JSON.stringify(statement)),
    type: 'application/vnd.in-toto+json',
  });
  await attachArtifactToImage({
    imageName: image,
    imageDigest: digest,
    artifact: Buffer.from(JSON.stringify(bundleToJSON(bundle))),
    mediaType: bundle.mediaType,
    annotations: { 'dev.sigstore.bundle.predicateType': predicateType },
    credentials,
  });
}

async function signAsCosign() {
  const [, registry, repository] = image.match(/^([^/]+)\/(.+)$/);
  const client = new RegistryClient(registry, repository, {});
  await client.signIn(credentials);
  const signed = Buffer.from(
    JSON.stringify({
      critical: {
        identity: { 'docker-reference': image },
        image: { 'docker-manifest-digest': digest },
        type: 'cosign container image signature',
      },
      optional: null,
    }),
  );
  const layer = await client.uploadBlob(signed);
  const config = await client.uploadBlob(Buffer.from('{}'));
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { ...config, mediaType: 'application/vnd.oci.image.config.v1+json' },
    layers: [
      {
        ...layer,
        mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
        annotations: { 'dev.cosignproject.cosign/signature': sign(signed).toString('base64') },
      },
    ],
  };
  const reference = `${digest.replace(':', '-')}.sig`;
  await client.uploadManifest(JSON.stringify(manifest), { reference });
}

await { attest, sign: signAsCosign }[command](...more);
