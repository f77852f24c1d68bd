//! What is coded comes back within the error that the number of bits allows.

use modularbase_deltas::{
    DeltaError, DeltaFormat, GROUP, Levels, add_to, check_blocks, decode_into, encode, fit_levels,
    relative_squared_error, unpack_codes,
};
use proptest::prelude::*;

/// A small generator (SplitMix64), so that every run sees the same numbers.
struct Random(u64);

impl Random {
    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / 2f64.powi(53) + 2f64.powi(-54)
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// Of variance 1.
    fn laplace(&mut self) -> f64 {
        let sign = if self.uniform() < 0.5 { -1.0 } else { 1.0 };
        sign * -self.uniform().ln() / 2f64.sqrt()
    }
}

fn values(count: usize, mut draw: impl FnMut() -> f64) -> Vec<f32> {
    (0..count).map(|_| draw() as f32).collect()
}

fn share_lost(delta: &[f32], format: DeltaFormat) -> f64 {
    let levels = fit_levels(delta, format).expect("fit");
    let blocks = encode(delta, &levels).expect("encode");
    relative_squared_error(delta, &blocks, &levels).expect("error")
}

#[test]
fn normal_deltas_lose_no_more_than_the_best_scalar_quantizer_with_one_scale() {
    let mut random = Random(1);
    let delta = values(1 << 20, || 0.004 * random.normal());
    // Max's distortions are 0.3634, 0.1175 and 0.03454. A scale of its own for each group gains, its rounding to f16
    // costs nothing that can be seen.
    for (format, limit) in [(DeltaFormat::Q1, 0.3634), (DeltaFormat::Q2, 0.1175), (DeltaFormat::Q3, 0.03454)]
    {
        let lost = share_lost(&delta, format);
        println!("normal, {format}: {lost:.5} of the variance");
        assert!(lost < limit && lost > 0.75 * limit, "{format}: {lost}");
    }
}

#[test]
fn heavy_tails_and_groups_of_different_size_lose_little_more() {
    let mut random = Random(2);
    let laplace = values(1 << 20, || 1e-3 * random.laplace());
    // Best quantizers of a Laplace distribution with one scale: 0.5, 0.1762 and 0.0545.
    for (format, limit) in [(DeltaFormat::Q1, 0.5), (DeltaFormat::Q2, 0.1762), (DeltaFormat::Q3, 0.0545)] {
        let lost = share_lost(&laplace, format);
        println!("Laplace, {format}: {lost:.5} of the variance");
        assert!(lost < limit, "{format}: {lost}");
    }
    let mut sizes = Random(3);
    let mut random = Random(4);
    let mut size = 1.0;
    let mut count = 0;
    let spread = values(1 << 20, || {
        if count % GROUP == 0 {
            size = 10f64.powf(4.0 * sizes.uniform() - 5.0);
        }
        count += 1;
        size * random.normal()
    });
    for (format, limit) in [(DeltaFormat::Q1, 0.3634), (DeltaFormat::Q2, 0.1175), (DeltaFormat::Q3, 0.03454)]
    {
        let lost = share_lost(&spread, format);
        println!("groups over four decades, {format}: {lost:.5} of the variance");
        assert!(lost < limit, "{format}: {lost}");
    }
}

#[test]
fn fitted_levels_are_better_than_those_for_normal_values_where_values_are_not_normal() {
    let mut random = Random(5);
    let delta = values(1 << 18, || 0.01 * random.laplace());
    let fixed = Levels::gaussian(DeltaFormat::Q3, 0.01);
    let blocks = encode(&delta, &fixed).expect("encode");
    let with_fixed = relative_squared_error(&delta, &blocks, &fixed).expect("error");
    let with_fitted = share_lost(&delta, DeltaFormat::Q3);
    println!("Laplace, delta-q3: fitted {with_fitted:.5}, fixed {with_fixed:.5}");
    assert!(with_fitted < 0.97 * with_fixed, "fitted {with_fitted}, fixed {with_fixed}");
}

#[test]
fn levels_are_symmetric_ascending_and_of_the_deltas_size() {
    let mut random = Random(6);
    for size in [1e-12, 1e-3, 1.0, 1e12] {
        let delta = values(1 << 14, || size * (random.normal() + 0.2));
        for format in DeltaFormat::ALL {
            let levels = fit_levels(&delta, format).expect("fit");
            let list = levels.as_slice();
            assert_eq!(list.len(), format.level_count());
            assert!(list.iter().zip(list.iter().rev()).all(|(a, b)| *a == -b), "{list:?}");
            assert_eq!(Levels::new(format, list).as_ref(), Ok(&levels));
            let lost = share_lost(&delta, format);
            assert!(lost < 0.4, "{format} at {size}: {lost}");
        }
    }
}

#[test]
fn groups_of_zeros_leave_the_base_to_the_bit() {
    let mut random = Random(7);
    let mut delta = values(4 * GROUP, || random.normal());
    delta[GROUP..2 * GROUP].fill(0.0);
    delta[3 * GROUP..].fill(-0.0);
    let base: Vec<f32> =
        (0..4 * GROUP).map(|i| if i % 3 == 0 { -0.0 } else { i as f32 * 0.1 - 5.0 }).collect();
    for format in DeltaFormat::ALL {
        let levels = fit_levels(&delta, format).expect("fit");
        let blocks = encode(&delta, &levels).expect("encode");
        let mut sums = base.clone();
        add_to(&blocks, &levels, &mut sums).expect("add");
        for range in [GROUP..2 * GROUP, 3 * GROUP..4 * GROUP] {
            assert!(range.into_iter().all(|i| sums[i].to_bits() == base[i].to_bits()), "{format}");
        }
        assert!((0..GROUP).any(|i| sums[i] != base[i]));
        let nothing = vec![0.0; 2 * GROUP];
        let levels = fit_levels(&nothing, format).expect("fit");
        let blocks = encode(&nothing, &levels).expect("encode");
        let mut sums = base[..2 * GROUP].to_vec();
        add_to(&blocks, &levels, &mut sums).expect("add");
        assert!(sums.iter().zip(&base).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_eq!(relative_squared_error(&nothing, &blocks, &levels), Ok(0.0));
    }
}

#[test]
fn nothing_is_coded_as_nothing() {
    for format in DeltaFormat::ALL {
        let levels = fit_levels(&[], format).expect("fit");
        assert_eq!(encode(&[], &levels), Ok(Vec::new()));
        assert_eq!(decode_into(&[], &levels, &mut []), Ok(()));
    }
}

#[test]
fn values_that_are_no_numbers_are_refused_with_their_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut delta = vec![0.5; 2 * GROUP];
        delta[70] = bad;
        let found = fit_levels(&delta, DeltaFormat::Q2).expect_err("refused");
        assert!(matches!(found, DeltaError::Value { index: 70, .. }), "{found}");
        let found = encode(&delta, &Levels::gaussian(DeltaFormat::Q2, 1.0)).expect_err("refused");
        assert!(matches!(found, DeltaError::Value { index: 70, .. }), "{found}");
    }
}

#[test]
fn parts_of_groups_wrong_lengths_wrong_levels_and_damaged_scales_are_refused() {
    let levels = Levels::gaussian(DeltaFormat::Q2, 1.0);
    assert_eq!(encode(&[0.0; 65], &levels), Err(DeltaError::PartialGroup { values: 65 }));
    assert_eq!(fit_levels(&[0.0; 1], DeltaFormat::Q1), Err(DeltaError::PartialGroup { values: 1 }));
    let mut blocks = encode(&[1.0; 128], &levels).expect("encode");
    assert_eq!(blocks.len(), 36);
    let wrong = DeltaError::BlockBytes { format: DeltaFormat::Q2, values: 128, expected: 36, found: 35 };
    assert_eq!(decode_into(&blocks[..35], &levels, &mut [0.0; 128]), Err(wrong));
    assert_eq!(check_blocks(&blocks, 128, DeltaFormat::Q2), Ok(()));
    blocks[18..20].copy_from_slice(&[0x00, 0x7c]);
    let found = check_blocks(&blocks, 128, DeltaFormat::Q2);
    assert_eq!(found, Err(DeltaError::Scale { index: 1, value: f32::INFINITY }));
    for bad in [[0.0, 1.0, 2.0, f32::NAN], [0.0, 0.0, 1.0, 2.0], [3.0, 2.0, 1.0, 0.0], [-1e38, 0.0, 1.0, 2.0]]
    {
        assert!(matches!(Levels::new(DeltaFormat::Q2, &bad), Err(DeltaError::Level { .. })), "{bad:?}");
    }
    let few = Levels::new(DeltaFormat::Q3, &[0.0; 4]);
    assert_eq!(few, Err(DeltaError::LevelCount { format: DeltaFormat::Q3, found: 4 }));
}

#[test]
fn formats_have_names_and_sizes() {
    for (format, name, bytes) in [
        (DeltaFormat::Q1, "delta-q1", 10),
        (DeltaFormat::Q2, "delta-q2", 18),
        (DeltaFormat::Q3, "delta-q3", 26),
    ] {
        assert_eq!((format.to_string().as_str(), name.parse()), (name, Ok(format)));
        assert_eq!((format.block_bytes(), format.encoded_bytes(640)), (bytes, Ok(10 * bytes)));
    }
    let found = "delta-q4".parse::<DeltaFormat>().expect_err("unknown").to_string();
    assert_eq!(found, "expected `delta-q1`, `delta-q2` or `delta-q3`, found `delta-q4`");
}

fn any_format() -> impl Strategy<Value = DeltaFormat> {
    prop::sample::select(DeltaFormat::ALL.to_vec())
}

/// Groups of any size from nothing to very large, with outliers.
fn any_deltas() -> impl Strategy<Value = Vec<f32>> {
    let group = (prop::collection::vec(-1.0f32..1.0, GROUP), -38..29i32, prop::option::of(0..GROUP))
        .prop_map(|(mut group, exponent, outlier)| {
            let size = 10f32.powi(exponent);
            group.iter_mut().for_each(|value| *value *= size);
            if let Some(outlier) = outlier {
                group[outlier] *= 50.0;
            }
            group
        });
    prop::collection::vec(group, 0..12).prop_map(|groups| groups.concat())
}

proptest! {
    #[test]
    fn any_finite_deltas_give_whole_sound_blocks_and_no_larger_error_than_leaving_them_out(
        delta in any_deltas(), format in any_format(),
    ) {
        let levels = fit_levels(&delta, format).expect("fit");
        let blocks = encode(&delta, &levels).expect("encode");
        prop_assert_eq!(check_blocks(&blocks, delta.len(), format), Ok(()));
        let mut decoded = vec![0.0; delta.len()];
        decode_into(&blocks, &levels, &mut decoded).expect("decode");
        prop_assert!(decoded.iter().all(|value| value.is_finite()));
        for (group, decoded) in delta.chunks(GROUP).zip(decoded.chunks(GROUP)) {
            let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
            let all = square(&mut group.iter().map(|&v| f64::from(v)));
            let lost = square(&mut group.iter().zip(decoded).map(|(&a, &b)| f64::from(a) - f64::from(b)));
            prop_assert!(lost <= all * 1.001, "{lost} of {all}");
        }
    }

    #[test]
    fn blocks_of_pieces_joined_are_the_blocks_of_the_whole(
        delta in any_deltas(), format in any_format(), cut in 0..12usize,
    ) {
        let levels = fit_levels(&delta, format).expect("fit");
        let (left, right) = delta.split_at((cut * GROUP).min(delta.len()));
        let pieces = [left, right].map(|piece| encode(piece, &levels).expect("encode")).concat();
        prop_assert_eq!(pieces, encode(&delta, &levels).expect("encode"));
    }

    #[test]
    fn each_code_stands_for_the_nearest_level(delta in any_deltas(), format in any_format()) {
        let levels = fit_levels(&delta, format).expect("fit");
        let blocks = encode(&delta, &levels).expect("encode");
        let mut decoded = vec![0.0; delta.len()];
        decode_into(&blocks, &levels, &mut decoded).expect("decode");
        for ((group, decoded), block) in
            delta.chunks(GROUP).zip(decoded.chunks(GROUP)).zip(blocks.chunks(format.block_bytes()))
        {
            let (scale, codes) = unpack_codes(block, format).expect("unpack");
            let scale = half::f16::from_bits(scale).to_f32();
            for ((&value, &decoded), code) in group.iter().zip(decoded).zip(codes) {
                prop_assert_eq!(decoded, scale * levels.as_slice()[usize::from(code)]);
                let nearest = levels.as_slice().iter().map(|l| (value - scale * l).abs()).fold(f32::MAX, f32::min);
                let slack = 1e-5 * (value.abs() + decoded.abs());
                prop_assert!((value - decoded).abs() <= nearest + slack);
            }
        }
    }
}
