//! The signature of Standard Webhooks: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::domain::webhook::Secret;

/// The value of the header `webhook-signature`: one signature for each secret, with spaces between them.
/// `timestamp` is of the attempt, in seconds since 1970.
pub fn signatures(secrets: &[Secret], event_id: &str, timestamp: u64, body: &str) -> String {
    let signature = |secret: &Secret| {
        let mut mac = match Hmac::<Sha256>::new_from_slice(secret.key()) {
            Ok(mac) => mac,
            Err(error) => panic!("HMAC takes keys of any length: {error}"),
        };
        for part in [event_id, ".", &timestamp.to_string(), ".", body] {
            mac.update(part.as_bytes());
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_signed_as_it_says() {
        let secret = Secret::checked("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("the standard's example");
        let body = r#"{"test": 2432232314}"#;
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let signed = |secrets: &[Secret]| signatures(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed(std::slice::from_ref(&secret)), expected);
        let both = signed(&[Secret::of([1; 32]), secret]);
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.ends_with(expected));
    }
}
