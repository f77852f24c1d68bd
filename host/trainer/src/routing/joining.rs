//! The detector of a pack that joins others, from its text alone: what its author has.

use candle_core::{DType, Tensor};
use pack_sdk::base_weights;
use router::{Detector, IntentFeature, RouterWeights};

use super::{DetectorOptions, LabelledFeature, Prompt, PromptForm, train_detectors};
use crate::{Batch, TrainError, TrainingBase};

/// The router's features of raw prompts, in their order; prompts in another form are left out.
///
/// # Errors
/// The device fails, or values are not finite.
pub fn intent_features(
    base: &TrainingBase,
    router: &RouterWeights,
    prompts: &[Prompt],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<IntentFeature>, TrainError> {
    let table = base.frozen(base_weights::TOKEN_EMBD)?.to_dtype(DType::F32)?;
    let device = &base.compute().device;
    let raw: Vec<&Prompt> = prompts.iter().filter(|prompt| prompt.form == PromptForm::Raw).collect();
    let mut features = Vec::with_capacity(raw.len());
    for (done, prompt) in raw.iter().enumerate() {
        let ids = Tensor::new(prompt.ids.as_slice(), device)?;
        let batch = Batch { sequences: 1, length: prompt.ids.len() };
        let hidden = base.before_slot(&ids, batch)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let embeddings = table.index_select(&ids, 0)?.flatten_all()?.to_vec1()?;
        let feature = router.feature(&prompt.ids, &hidden, &embeddings);
        features
            .push(feature.ok_or_else(|| TrainError::evaluation("the base's hidden states are not finite"))?);
        progress(done as u64 + 1, raw.len() as u64);
    }
    Ok(features)
}

/// The detector of `pack` beside those in `frozen`, which stay as they are: `own` are features of its text, `others` of
/// general text; the router's own general prompts count as such too.
///
/// # Errors
/// No feature of its own, or features and detectors of another router.
pub fn joining_detector(
    pack: &str,
    router: &RouterWeights,
    own: Vec<IntentFeature>,
    others: Vec<IntentFeature>,
    frozen: &[(String, &Detector)],
    options: DetectorOptions,
) -> Result<Detector, TrainError> {
    let labelled = |feature, packs: &[&str]| LabelledFeature {
        feature,
        packs: packs.iter().map(|name| (*name).to_owned()).collect(),
        weight: 1.0,
    };
    let general = others.into_iter().chain(router.general().iter().cloned());
    let prompts: Vec<LabelledFeature> = own
        .into_iter()
        .map(|feature| labelled(feature, &[pack]))
        .chain(general.map(|feature| labelled(feature, &[])))
        .collect();
    let trained = train_detectors(&[pack.to_owned()], None, frozen, &prompts, options, &mut |_, _| {})?;
    trained.into_iter().next().ok_or_else(|| TrainError::evaluation("no detector was trained"))
}
