//! `settings.image-verifier-plugins`.

use crate::Scalar;
use crate::model::{describe, group};
use crate::types::{base64_decode, text};
use serde_json::Value;

group! {
    /// Checks of an image's signature before a pod runs it.
    pub struct ImageVerifierPlugins {
        /// Whether images are checked. No program of the host does, so `true` is refused:
        /// whoever asks for it is not to run images that nobody has checked.
        "enabled" => enabled: Unchecked, default false;
        /// Checks by Notation.
        "notation" => notation: Notation;
    }
}

group! {
    /// Checks by Notation.
    pub struct Notation {
        /// The trust policy: base64 of its JSON.
        "trustpolicy" => trustpolicy: TrustPolicy;
    }
}

/// A switch that stays off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unchecked;

impl Scalar for Unchecked {
    const WHAT: &'static str = "false";
    const KIND: &'static str = "boolean";
    const EXAMPLE: &'static str = "false";

    fn check(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(false) => Ok(Self),
            Value::Bool(true) => Err(
                "no program of this host checks signatures, so images would run unchecked; \
                 leave it out, and have them checked where the cluster admits pods"
                    .into(),
            ),
            other => Err(format!("expected {}, got {}", Self::WHAT, describe(other))),
        }
    }

    fn value(&self) -> Value {
        Value::Bool(false)
    }

    fn choices() -> Option<&'static [&'static str]> {
        Some(&["false"])
    }
}

/// Base64 of a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPolicy(String);

impl TrustPolicy {
    const LIMIT: usize = 1024 * 1024;

    /// The base64 text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for TrustPolicy {
    const WHAT: &'static str = "base64 of a JSON object";
    const EXAMPLE: &'static str = "\"eyJ2ZXJzaW9uIjogIjEuMCIsICJ0cnVzdFBvbGljaWVzIjogW119\"";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9+/]*={0,2}$");

    fn check(value: &Value) -> Result<Self, String> {
        let text = text(value, Self::WHAT)?;
        let bytes = base64_decode(text, Self::LIMIT)?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(_)) => Ok(Self(text.to_string())),
            Ok(_) => Err("what the base64 holds is JSON, but no object".into()),
            Err(_) => Err("what the base64 holds is not JSON".into()),
        }
    }

    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::check;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    #[test]
    fn nobody_is_left_to_believe_that_images_are_checked() {
        check::<Unchecked>(&[json!(false)], &[json!(true), json!("false"), json!(0)]);
        let reason = Unchecked::check(&json!(true)).expect_err("refused");
        assert!(reason.contains("would run unchecked"), "{reason}");
    }

    #[test]
    fn trust_policies() {
        let encoded = |text: &str| json!(STANDARD.encode(text));
        check::<TrustPolicy>(
            &[encoded("{\"version\": \"1.0\"}")],
            &[
                encoded(""),
                encoded("[]"),
                encoded("{"),
                json!("{}"),
                json!(1),
            ],
        );
    }
}
