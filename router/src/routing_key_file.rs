//! A routing key as a safetensors file.
//!
//! | tensor | type and shape | what |
//! | --- | --- | --- |
//! | `mean` | F32 `[hidden]` | the mean feature |
//! | `factors` | F16 `[rank, hidden]` | the strongest directions of the scatter; times `factor_scale` |
//! | `diagonal` | F32 `[hidden]` | what is left of each feature's variance |
//! | `detector.hidden` | I8 `[units, 4 * hidden]` | optional, as the next four: the [`Detector`]'s first layer |
//! | `detector.scales`, `detector.hidden_bias`, `detector.output` | F32 `[units]` | |
//! | `detector.output_bias` | F32 `[1]` | |
//!
//! The `__metadata__` say under `modularbase.routing_key`, as JSON text, what the key is of ([`KeyFacts`]), and under
//! `modularbase.factor_scale` the factor of `factors`.

use std::collections::HashMap;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Detector, KeyError, KeyFacts, MAX_KEY_BYTES, RoutingKey, Scatter};

const FACTS: &str = "modularbase.routing_key";
const SCALE: &str = "modularbase.factor_scale";

impl RoutingKey {
    /// The key's file.
    ///
    /// # Errors
    /// A key that [`RoutingKey::check`] refuses.
    pub fn to_bytes(&self) -> Result<Vec<u8>, KeyError> {
        self.check()?;
        let factors = self.scatter.factors();
        // Scaled to 1, nothing overflows and what underflows is nothing.
        let largest = factors.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let floats =
            |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let halves: Vec<u8> =
            factors.iter().flat_map(|value| f16::from_f32(value / scale).to_le_bytes()).collect();
        let (mean, diagonal) = (floats(&self.mean), floats(self.scatter.diagonal()));
        let width = self.width();
        let unsound = |error: safetensors::SafeTensorError| KeyError::Format(error.to_string().into());
        let mut tensors = vec![
            ("mean", TensorView::new(Dtype::F32, vec![width], &mean).map_err(unsound)?),
            ("diagonal", TensorView::new(Dtype::F32, vec![width], &diagonal).map_err(unsound)?),
            (
                "factors",
                TensorView::new(Dtype::F16, vec![self.scatter.rank(), width], &halves).map_err(unsound)?,
            ),
        ];
        let learned = self.detector.as_ref().map(|detector| {
            let codes = detector.codes().iter().map(|code| code.cast_unsigned()).collect();
            let units = detector.units();
            let [scales, hidden_bias, output] = detector.vectors().map(floats);
            [
                ("detector.hidden", Dtype::I8, vec![units, detector.inputs()], codes),
                ("detector.scales", Dtype::F32, vec![units], scales),
                ("detector.hidden_bias", Dtype::F32, vec![units], hidden_bias),
                ("detector.output", Dtype::F32, vec![units], output),
                ("detector.output_bias", Dtype::F32, vec![1], floats(&[detector.output_bias()])),
            ]
        });
        for (name, dtype, shape, bytes) in learned.iter().flatten() {
            tensors.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(unsound)?));
        }
        let facts =
            serde_json::to_string(&self.facts).map_err(|error| KeyError::Facts(error.to_string().into()))?;
        let texts = HashMap::from([(FACTS.to_owned(), facts), (SCALE.to_owned(), scale.to_string())]);
        safetensors::serialize(tensors, Some(texts)).map_err(unsound)
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// Bytes that are no sound key: nothing of them is trusted.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLarge { found: bytes.len() });
        }
        let unsound = |error: safetensors::SafeTensorError| KeyError::Format(error.to_string().into());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(unsound)?;
        let texts = metadata.metadata().clone().unwrap_or_default();
        let text = |key: &str| {
            texts.get(key).ok_or_else(|| KeyError::Facts(format!("expected `{key}`, found nothing").into()))
        };
        let facts: KeyFacts = serde_json::from_str(text(FACTS)?)
            .map_err(|error| KeyError::Facts(format!("`{FACTS}`: {error}").into()))?;
        let scale = text(SCALE)?;
        let scale: f32 =
            scale.parse().ok().filter(|scale: &f32| scale.is_finite() && *scale > 0.0).ok_or_else(|| {
                KeyError::Facts(format!("`{SCALE}`: expected a number above 0, found `{scale}`").into())
            })?;
        let tensors = SafeTensors::deserialize(bytes).map_err(unsound)?;
        let mean = floats(&tensors, "mean", None)?;
        let width = mean.len();
        let diagonal = floats(&tensors, "diagonal", Some(width))?;
        let factors = factors(&tensors, width, scale)?;
        if let Some(index) = diagonal.iter().position(|value| value.is_nan() || *value < 0.0) {
            let value = diagonal[index].to_string().into();
            return Err(KeyError::Value { name: "diagonal", index, value });
        }
        if let Some(index) = factors.iter().position(|value| !value.is_finite()) {
            return Err(KeyError::Value { name: "factors", index, value: factors[index].to_string().into() });
        }
        let scatter = Scatter::new(factors, diagonal)
            .ok_or_else(|| KeyError::Facts("its tensors have no width".into()))?;
        let detector = detector(&tensors, width)?;
        let key = Self { facts, mean, scatter, detector };
        key.check()?;
        Ok(key)
    }
}

fn floats(tensors: &SafeTensors<'_>, name: &'static str, width: Option<usize>) -> Result<Vec<f32>, KeyError> {
    let expected = width.map_or("F32 [hidden]".to_owned(), |width| format!("F32 [{width}]"));
    let view = view(tensors, name, &expected)?;
    match (view.dtype(), view.shape()) {
        (Dtype::F32, &[found]) if width.is_none_or(|width| width == found) => {
            let (words, _) = view.data().as_chunks::<4>();
            Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
        }
        _ => Err(wrong(name, &expected, &view)),
    }
}

fn factors(tensors: &SafeTensors<'_>, width: usize, scale: f32) -> Result<Vec<f32>, KeyError> {
    let expected = format!("F16 [rank, {width}] with a rank of at most {width}");
    let view = view(tensors, "factors", &expected)?;
    match (view.dtype(), view.shape()) {
        (Dtype::F16, &[rank, found]) if found == width && rank <= width => {
            let (words, _) = view.data().as_chunks::<2>();
            Ok(words.iter().map(|word| f16::from_le_bytes(*word).to_f32() * scale).collect())
        }
        _ => Err(wrong("factors", &expected, &view)),
    }
}

fn detector(tensors: &SafeTensors<'_>, width: usize) -> Result<Option<Detector>, KeyError> {
    let Ok(view) = tensors.tensor("detector.hidden") else { return Ok(None) };
    let expected = format!("I8 [units, {}]", 4 * width);
    let units = match (view.dtype(), view.shape()) {
        (Dtype::I8, &[units, inputs]) if inputs == 4 * width => units,
        _ => return Err(wrong("detector.hidden", &expected, &view)),
    };
    Ok(Some(Detector::from_parts(
        view.data().iter().map(|code| code.cast_signed()).collect(),
        floats(tensors, "detector.scales", Some(units))?,
        floats(tensors, "detector.hidden_bias", Some(units))?,
        floats(tensors, "detector.output", Some(units))?,
        floats(tensors, "detector.output_bias", Some(1))?[0],
    )))
}

fn view<'a>(
    tensors: &'a SafeTensors<'_>,
    name: &'static str,
    expected: &str,
) -> Result<TensorView<'a>, KeyError> {
    tensors.tensor(name).map_err(|_| KeyError::Tensor {
        name,
        expected: expected.into(),
        found: "nothing".into(),
    })
}

fn wrong(name: &'static str, expected: &str, view: &TensorView<'_>) -> KeyError {
    let found = format!("{:?} {:?}", view.dtype(), view.shape());
    KeyError::Tensor { name, expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use manifests::{Sha256, Slot};

    use super::*;

    fn key(width: usize) -> RoutingKey {
        let factors = (0..2 * width).map(|at| (at as f32 * 0.7).sin() * 30.0).collect();
        let diagonal = (0..width).map(|at| 0.1 + at as f32 * 1e-3).collect();
        RoutingKey {
            facts: KeyFacts {
                version: 1,
                base: Sha256::of_bytes(b"base"),
                slot: Slot::new(2, 4).unwrap(),
                prompts: 7,
                counts: [("raw 8-15".to_owned(), 7)].into(),
                router: Some(Sha256::of_bytes(b"router")),
                check: None,
            },
            mean: (0..width).map(|at| at as f32 - 3.0).collect(),
            scatter: Scatter::new(factors, diagonal).unwrap(),
            detector: None,
        }
    }

    #[test]
    fn a_key_comes_back_but_for_the_rounding_of_its_factors() {
        let key = key(16);
        let back = RoutingKey::from_bytes(&key.to_bytes().unwrap()).unwrap();
        assert_eq!((&back.facts, &back.mean), (&key.facts, &key.mean));
        assert_eq!(back.scatter.diagonal(), key.scatter.diagonal());
        for (found, expected) in back.scatter.factors().iter().zip(key.scatter.factors()) {
            assert!((found - expected).abs() <= 30.0 / 2048.0, "{found} {expected}");
        }
    }

    #[test]
    fn a_detector_comes_back_to_the_bit_and_names_its_router() {
        let hidden: Vec<f32> = (0..3 * 64).map(|at| (at as f32).sin()).collect();
        let detector = Detector::new(&hidden, vec![0.1, -0.2, 0.3], vec![1.0, -1.0, 0.5], -2.0);
        let key = RoutingKey { detector: Some(detector), ..key(16) };
        let back = RoutingKey::from_bytes(&key.to_bytes().unwrap()).unwrap();
        assert_eq!((back.detector, back.facts.router), (key.detector.clone(), key.facts.router));
        let mut nameless = key;
        nameless.facts.router = None;
        assert!(nameless.to_bytes().unwrap_err().to_string().contains("names no router"));
    }

    #[test]
    fn a_key_of_the_default_base_is_under_200_kb() {
        let factors = vec![0.5; 64 * 576];
        let scatter = Scatter::new(factors, vec![1.0; 576]).unwrap();
        let key = RoutingKey { mean: vec![0.25; 576], scatter, ..key(4) };
        let bytes = key.to_bytes().unwrap().len();
        assert!(bytes < 100_000, "{bytes}");
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let said = |bytes: &[u8]| RoutingKey::from_bytes(bytes).unwrap_err().to_string();
        assert!(said(b"no").contains("no sound safetensors file"));
        assert!(said(&vec![0; MAX_KEY_BYTES + 1]).contains("at most 1048576"));
        let sound = key(16).to_bytes().unwrap();
        for cut in [8, 100, sound.len() - 1] {
            said(&sound[..cut]);
        }
        let changed = |change: fn(&mut RoutingKey)| {
            let mut key = key(16);
            change(&mut key);
            key.to_bytes().unwrap_err().to_string()
        };
        assert!(changed(|key| key.mean[3] = f32::NAN).contains("`mean` holds NaN at 3"));
        assert!(changed(|key| key.mean[3] = 1e9).contains("make it anew"));
        assert!(changed(|key| key.mean.push(0.0)).contains("`diagonal`: expected [17], found [16]"));
        assert!(changed(|key| key.facts.version = 2).contains("newer host"));
        assert!(changed(|key| key.facts.prompts = 0).contains("no prompt"));
    }

    #[test]
    fn values_that_are_damaged_in_the_file_are_found() {
        let sound = key(16).to_bytes().unwrap();
        let data = sound.len() - (16 * 4 * 2 + 2 * 16 * 2);
        let mut found = 0;
        for at in (data..sound.len()).step_by(4) {
            let mut damaged = sound.clone();
            damaged[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            found += u32::from(RoutingKey::from_bytes(&damaged).is_err());
        }
        assert_eq!(found, (16 + 16 + 16), "every value of 4 bytes, every pair of 2");
    }
}
