//! Signatures of tokens by ring, whose cryptography TLS uses already: the choices that `jsonwebtoken` brings would compile a C
//! library or a second set of curves. Verifying only; what signs is not here.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature as by;
use signature::Verifier;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(Error::from(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: |algorithm, key| {
        // One kind of key must never be taken for another: RSA's public key is no secret of HMAC.
        match algorithm.family() == key.family() && kind(*algorithm).is_some() {
            true => Ok(Box::new(RingVerifier {
                algorithm: *algorithm,
                key: key.clone(),
            })),
            false => Err(Error::from(ErrorKind::InvalidAlgorithm)),
        }
    },
    // For keys that are made or hashed, which nothing here does.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` verify by ring, in this process.
pub fn install() {
    // The second time it is there already.
    let _ = PROVIDER.install_default();
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

enum Kind {
    Rsa(&'static by::RsaParameters),
    Other(&'static dyn by::VerificationAlgorithm),
}

fn kind(algorithm: Algorithm) -> Option<Kind> {
    Some(match algorithm {
        Algorithm::RS256 => Kind::Rsa(&by::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Kind::Rsa(&by::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Kind::Rsa(&by::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Kind::Rsa(&by::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Kind::Rsa(&by::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Kind::Rsa(&by::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => Kind::Other(&by::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Kind::Other(&by::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Kind::Other(&by::ED25519),
        _ => return None,
    })
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (kind(self.algorithm), self.key.kind()) {
            (Some(Kind::Rsa(parameters)), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                by::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Some(Kind::Other(algorithm)), DecodingKeyKind::SecretOrDer(point)) => {
                by::UnparsedPublicKey::new(algorithm, point).verify(message, signature)
            }
            _ => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
