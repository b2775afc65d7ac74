//! HS256 for the jsonwebtoken crate, by ring, which TLS uses already.
//!
//! The providers that come with the crate bring RSA and elliptic curves, which no session is signed with.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    signature::{self, Verifier},
};
use ring::hmac;

/// Verifies HS256 and answers everything else with an error: nothing here signs tokens or reads JWKs.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| unsupported(),
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| unsupported(),
        rsa_pub_components_from_public_key: |_| unsupported(),
        ec_pub_components_from_private_key: |_, _| unsupported(),
        ed_pub_components_from_private_key: |_, _| unsupported(),
        compute_digest: |_, _| unsupported(),
    },
};

/// Makes jsonwebtoken use ring in this process. Without a provider, `decode` would panic.
pub(super) fn install() {
    // An error means that it is installed already.
    let _ = PROVIDER.install_default();
}

fn unsupported<T>() -> Result<T> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::HS256 || key.family() != AlgorithmFamily::Hmac {
        return unsupported();
    }
    Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?))))
}

struct Hs256(hmac::Key);

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{
        EncodingKey, Header, encode,
        jwk::{EllipticCurve, ThumbprintHash},
    };

    use super::*;

    #[test]
    fn whatever_is_not_hs256_is_an_error() {
        let key = DecodingKey::from_secret(b"key");
        assert!(verifier(&Algorithm::HS256, &key).is_ok());
        for other in [
            Algorithm::HS384,
            Algorithm::HS512,
            Algorithm::ES256,
            Algorithm::ES384,
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
            Algorithm::EdDSA,
        ] {
            assert!(verifier(&other, &key).is_err(), "{other:?}");
        }
        assert!(verifier(&Algorithm::HS256, &DecodingKey::from_rsa_raw_components(b"n", b"e")).is_err());
        assert!(verifier(&Algorithm::HS256, &DecodingKey::from_ec_der(b"key")).is_err());
    }

    #[test]
    fn signing_and_the_functions_for_jwks_are_errors_and_no_panics() {
        install();
        assert!(encode(&Header::default(), &"claims", &EncodingKey::from_secret(b"key")).is_err());
        let KeyUtils {
            rsa_pub_components_from_private_key,
            rsa_pub_components_from_public_key,
            ec_pub_components_from_private_key,
            ed_pub_components_from_private_key,
            compute_digest,
        } = &PROVIDER.key_utils;
        assert!(rsa_pub_components_from_private_key(b"").is_err());
        assert!(rsa_pub_components_from_public_key(b"").is_err());
        assert!(ec_pub_components_from_private_key(b"", Algorithm::ES256).is_err());
        assert!(ed_pub_components_from_private_key(b"", &EllipticCurve::Ed25519).is_err());
        assert!(compute_digest(b"", ThumbprintHash::SHA256).is_err());
    }
}
