//! Whether a pack changes anything.

use modularbase_core::{BaseCore, CoreError, Expert};

/// How far a pack moves the hidden states behind the slot away from where the base's own layers put them, for `tokens`:
/// the root mean square of the difference over that of the base's own output. 0 is no effect at all.
///
/// # Errors
/// A failing device, or a result that is not finite.
pub fn effect_on_hidden_states(core: &BaseCore, expert: &Expert, tokens: &[u32]) -> Result<f64, CoreError> {
    let hidden = core.hidden_before_slot(tokens)?;
    let own = core.own_slot_layers()?.output(&hidden)?.to_vec()?;
    let pack = expert.output(&hidden)?.to_vec()?;
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let pairs = || pack.iter().zip(&own).map(|(pack, own)| f64::from(*pack) - f64::from(*own));
    let difference = square(&mut pairs());
    let size = square(&mut own.iter().map(|value| f64::from(*value)));
    Ok((difference / size).sqrt())
}
