//! A router's weights as a safetensors file.
//!
//! | tensor | type and shape | what |
//! | --- | --- | --- |
//! | `token_weights` | F16 `[vocab]` | how much each token counts |
//! | `mean`, `deviation` | F32 `[4 * hidden]` | what is usual of the four means |
//! | `general` | I8 `[prompts, 4 * hidden]` | optional: features of general prompts, in 127ths of 6 deviations |
//!
//! The `__metadata__` say under `modularbase.router`, as JSON text, what it is of ([`RouterFacts`]).

use std::collections::HashMap;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::intent_feature::FARTHEST;
use crate::{IntentFeature, MAX_ROUTER_BYTES, RouterError, RouterFacts, RouterWeights};

const FACTS: &str = "modularbase.router";

/// A deviation in steps of `general`.
const CODES: f32 = 127.0 / FARTHEST;

impl RouterWeights {
    /// The file.
    ///
    /// # Errors
    /// Weights that [`RouterWeights::check`] refuses.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RouterError> {
        self.check()?;
        let floats =
            |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let tokens: Vec<u8> =
            self.token_weights.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        let code = |value: f32| (value * CODES).round() as i8;
        let general: Vec<u8> = self
            .general
            .iter()
            .flat_map(|feature| feature.values().map(code))
            .map(i8::cast_unsigned)
            .collect();
        let (mean, deviation) = (floats(&self.mean), floats(&self.deviation));
        let width = self.mean.len();
        let tensors = [
            ("token_weights", Dtype::F16, vec![self.token_weights.len()], &tokens),
            ("mean", Dtype::F32, vec![width], &mean),
            ("deviation", Dtype::F32, vec![width], &deviation),
            ("general", Dtype::I8, vec![self.general.len(), width], &general),
        ];
        let views: Result<Vec<_>, _> = tensors
            .into_iter()
            .map(|(name, dtype, shape, bytes)| {
                Ok((name, TensorView::new(dtype, shape, bytes).map_err(unsound)?))
            })
            .collect();
        let facts = serde_json::to_string(&self.facts)
            .map_err(|error| RouterError::Facts(error.to_string().into()))?;
        safetensors::serialize(views?, Some(HashMap::from([(FACTS.to_owned(), facts)]))).map_err(unsound)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Bytes that are no sound router: nothing of them is trusted.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RouterError> {
        if bytes.len() > MAX_ROUTER_BYTES {
            return Err(RouterError::TooLarge { found: bytes.len() });
        }
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(unsound)?;
        let texts = metadata.metadata().clone().unwrap_or_default();
        let text = texts
            .get(FACTS)
            .ok_or_else(|| RouterError::Facts(format!("expected `{FACTS}`, found nothing").into()))?;
        let facts: RouterFacts = serde_json::from_str(text)
            .map_err(|error| RouterError::Facts(format!("`{FACTS}`: {error}").into()))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(unsound)?;
        let mut weights = Self {
            facts,
            token_weights: halves(&tensors, "token_weights")?,
            mean: floats(&tensors, "mean")?,
            deviation: floats(&tensors, "deviation")?,
            general: Vec::new(),
        };
        weights.check()?;
        weights.general = general(&tensors, weights.mean.len())?;
        Ok(weights)
    }
}

fn unsound(error: safetensors::SafeTensorError) -> RouterError {
    RouterError::Format(error.to_string().into())
}

fn view<'a>(
    tensors: &'a SafeTensors<'_>,
    name: &'static str,
    expected: &str,
) -> Result<TensorView<'a>, RouterError> {
    let missing = |_| RouterError::Tensor { name, expected: expected.into(), found: "nothing".into() };
    tensors.tensor(name).map_err(missing)
}

fn wrong(name: &'static str, expected: &str, view: &TensorView<'_>) -> RouterError {
    let found = format!("{:?} {:?}", view.dtype(), view.shape());
    RouterError::Tensor { name, expected: expected.into(), found: found.into() }
}

fn halves(tensors: &SafeTensors<'_>, name: &'static str) -> Result<Vec<f32>, RouterError> {
    let view = view(tensors, name, "F16 [vocab]")?;
    match (view.dtype(), view.shape()) {
        (Dtype::F16, &[_]) => {
            let (words, _) = view.data().as_chunks::<2>();
            Ok(words.iter().map(|word| f16::from_le_bytes(*word).to_f32()).collect())
        }
        _ => Err(wrong(name, "F16 [vocab]", &view)),
    }
}

fn floats(tensors: &SafeTensors<'_>, name: &'static str) -> Result<Vec<f32>, RouterError> {
    let view = view(tensors, name, "F32 [4 * hidden]")?;
    match (view.dtype(), view.shape()) {
        (Dtype::F32, &[_]) => {
            let (words, _) = view.data().as_chunks::<4>();
            Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
        }
        _ => Err(wrong(name, "F32 [4 * hidden]", &view)),
    }
}

fn general(tensors: &SafeTensors<'_>, width: usize) -> Result<Vec<IntentFeature>, RouterError> {
    let Ok(view) = tensors.tensor("general") else { return Ok(Vec::new()) };
    match (view.dtype(), view.shape()) {
        (Dtype::I8, &[_, found]) if found == width => {
            let rows = view.data().chunks_exact(width);
            let value = |code: &u8| f32::from(code.cast_signed()) / CODES;
            Ok(rows.map(|row| IntentFeature::from_values(row.iter().map(value))).collect())
        }
        _ => Err(wrong("general", &format!("I8 [prompts, {width}]"), &view)),
    }
}

#[cfg(test)]
mod tests {
    use manifests::{Sha256, Slot};

    use super::*;
    use crate::RoutingPolicy;

    fn weights() -> RouterWeights {
        let mut weights = RouterWeights {
            facts: RouterFacts {
                version: 1,
                base: Sha256::of_bytes(b"base"),
                slot: Slot::new(2, 4).unwrap(),
                prompts: 9,
                policy: RoutingPolicy::default(),
            },
            token_weights: RouterWeights::weights_of_tokens(6, [1, 1, 1, 2, 9]),
            mean: vec![0.5; 8],
            deviation: vec![0.25; 8],
            general: Vec::new(),
        };
        weights.set_general(vec![IntentFeature::from_values([0.0, 6.0, -6.0, 1.0, 0.0, 0.0, 0.0, 9.0])]);
        weights
    }

    #[test]
    fn what_is_written_is_read_and_has_the_same_projection() {
        let weights = weights();
        let back = RouterWeights::from_bytes(&weights.to_bytes().unwrap()).unwrap();
        assert_eq!((&back.facts, &back.token_weights), (&weights.facts, &weights.token_weights));
        assert_eq!(back.projection(), weights.projection());
        for (found, meant) in back.general()[0].values().zip(weights.general()[0].values()) {
            assert!((found - meant).abs() <= FARTHEST / 254.0 + 1.0 / 256.0, "{found} {meant}");
        }
        let mut other = weights.clone();
        other.mean[0] += 1e-3;
        assert_ne!(other.projection(), weights.projection());
        other = weights.clone();
        other.facts.policy.threshold = 0.4;
        assert_eq!(other.projection(), weights.projection(), "detectors live through another policy");
    }

    #[test]
    fn rare_tokens_count_more_and_the_first_hidden_state_not_at_all() {
        let weights = weights();
        assert!(weights.token_weights[1] < weights.token_weights[2]);
        assert!(weights.token_weights[2] < weights.token_weights[3]);
        let token_weights = [1.0, 3.0, 1.0];
        let hidden = [9.0, 9.0, 1.0, 2.0, 5.0, 6.0];
        let means = RouterWeights::means(&token_weights, &[0, 1, 2], &hidden, &[0.0; 6]).unwrap();
        assert_eq!(means[..4], [3.0, 4.0, 2.0, 3.0]);
        let alone = RouterWeights::means(&token_weights, &[2], &[4.0, 5.0], &[1.0, 2.0]).unwrap();
        assert_eq!(alone, [4.0, 5.0, 4.0, 5.0, 1.0, 2.0, 1.0, 2.0]);
        assert_eq!(RouterWeights::means(&token_weights, &[], &[], &[]), None);
        assert_eq!(weights.feature(&[0], &[f32::NAN, 0.0], &[0.0, 0.0]), None);
    }

    #[test]
    fn what_is_no_router_is_refused_by_name() {
        let said = |change: fn(&mut RouterWeights)| {
            let mut changed = weights();
            change(&mut changed);
            changed.to_bytes().unwrap_err().to_string()
        };
        assert!(said(|weights| weights.facts.version = 2).contains("newer host"));
        assert!(said(|weights| weights.mean[1] = f32::NAN).contains("`mean` holds NaN at 1"));
        assert!(said(|weights| weights.deviation[2] = 0.0).contains("`deviation` holds 0 at 2"));
        assert!(said(|weights| weights.token_weights[0] = -1.0).contains("`token_weights`"));
        assert!(said(|weights| weights.deviation.push(1.0)).contains("four times"));
        assert!(said(|weights| weights.facts.policy.temperature = 0.0).contains("temperature"));
        let sound = weights().to_bytes().unwrap();
        for cut in [0, 8, 100, sound.len() - 1] {
            RouterWeights::from_bytes(&sound[..cut]).unwrap_err();
        }
    }
}
