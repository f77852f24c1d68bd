//! Quantized paths are held to the loss, not to tokens: where two logits lie close, correct engines differ.

use modularbase_core::{Advance, BaseCore, BaseFile, LogitRows, Mixture, Sequence, Tokenizer, WeightDtype};

use crate::base;

/// Part of a novel in the public domain (F. Scott Fitzgerald, The Great Gatsby, chapter 9).
const TEXT: &str = include_str!("../data/novel.txt");

fn mean_nll(core: &BaseCore, tokens: &[u32]) -> f64 {
    let mixture = Mixture::single(core.own_slot_layers().unwrap().into());
    let (mut sum, mut count) = (0.0, 0);
    for window in tokens.chunks_exact(256) {
        let mut sequence = Sequence::new(core, mixture.clone());
        let step = Advance { sequence: &mut sequence, tokens: &window[..255], logits: LogitRows::All };
        let logits = core.advance(&mut [step]).unwrap().remove(0).unwrap().to_vec().unwrap();
        for (row, &next) in logits.chunks_exact(core.shape().vocab_size).zip(&window[1..]) {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|logit| f64::from(logit - best).exp()).sum();
            sum += f64::from(best) + total.ln() - f64::from(row[next as usize]);
            count += 1;
        }
    }
    sum / f64::from(count)
}

#[test]
fn quantized_weights_keep_the_loss_of_f32() {
    let tokenizer = Tokenizer::of_base(&BaseFile::open(base::path()).unwrap()).unwrap();
    let tokens = tokenizer.encode(TEXT, false).unwrap();
    let tokens = &tokens[..256 * 6];
    let exact = mean_nll(&base::on_cpu(WeightDtype::F32), tokens);
    assert!((2.0..4.5).contains(&exact), "{exact}");
    for (dtype, tolerance) in [
        (WeightDtype::Q8_0, 0.005),
        (WeightDtype::AsStored, 0.005),
        (WeightDtype::BF16, 0.005),
        (WeightDtype::F16, 0.001),
    ] {
        let loss = mean_nll(&base::on_cpu(dtype), tokens);
        println!("{dtype:?}: {loss:.5}, f32: {exact:.5}, ratio {:.5}", loss / exact);
        assert!((loss / exact - 1.0).abs() <= tolerance, "{dtype:?}: {loss}, f32 {exact}");
    }
}
