//! Batch top-k against a stable sort of the whole matrix.

use inscape::ops::{BatchTopk, batch_topk, batch_topk_reference};

use super::*;

type BatchOp = fn(Tensor<2>, usize) -> BatchTopk;

/// Bits of the values, flat places, bits of the threshold.
#[derive(Debug, PartialEq)]
struct Taken {
    values: Vec<u32>,
    places: Vec<i64>,
    threshold: u32,
}

/// The hard sizes; `k` is the total. A word of marks has 32 elements, a block of marks 8,192, a
/// block of the histogram 32,768; the CPU form takes a sample above 65,536.
fn batch_cases() -> Vec<Case> {
    let view = |view, case| Case { view, ..case };
    vec![
        case("one element", 1, 1, 1, uniform),
        case("one row", 1, 300, 7, uniform),
        case("one column", 300, 1, 7, uniform),
        case("total = 1", 5, 1000, 1, uniform),
        case("all of a small one", 3, 17, 51, uniform),
        case("all but one", 3, 17, 50, any_bits),
        case("31 elements", 1, 31, 5, uniform),
        case("32 elements", 2, 16, 5, uniform),
        case("33 elements", 3, 11, 5, uniform),
        case("workgroup - 1", 3, 85, 31, uniform),
        case("workgroup", 4, 64, 31, uniform),
        case("workgroup + 1", 1, 257, 31, uniform),
        case("block of marks - 1", 1, 8191, 700, uniform),
        case("block of marks", 32, 256, 700, uniform),
        case("block of marks + 1", 3, 2731, 700, uniform),
        case("a block and a word", 257, 32, 8223, uniform),
        case("block of the histogram + 1", 11, 2979, 1000, uniform),
        case("ties across rows", 9, 513, 40, few_values),
        case("ties, half of all", 9, 513, 2300, few_values),
        case("ties, total = 1", 9, 513, 1, few_values),
        case("ties across blocks", 40, 600, 11_000, few_values),
        case("all equal", 40, 600, 9000, |_| 2.5),
        case("all equal, all taken", 4, 600, 2400, |_| 2.5),
        case("all NaN", 20, 600, 8300, |_| f32::NAN),
        case("all -inf", 2, 300, 7, |_| f32::NEG_INFINITY),
        case("NaN, inf, zeros", 16, 128, 900, special),
        case("NaN and some inf", 16, 128, 600, special),
        case("more NaN than total", 4, 300, 9, special),
        case("both zeros", 4, 300, 77, zeros),
        case("subnormal", 4, 300, 200, subnormal),
        case("any bits", 8, 2000, 5000, any_bits),
        case("rising", 2, 5000, 50, |i| i as f32),
        case("falling", 2, 5000, 50, |i| -(i as f32)),
        case("negative", 2, 500, 50, |i| -1.0 - hash(i) as f32),
        view(View::Transposed, case("transposed", 37, 300, 900, uniform)),
        view(View::Sliced, case("sliced", 37, 300, 900, uniform)),
        view(View::Sliced, case("sliced ties", 5, 257, 300, few_values)),
    ]
}

/// Past the sample of the CPU form and past one workgroup of every kernel.
fn large_batch_cases() -> Vec<Case> {
    vec![
        case("the sample + 1", 1, 65_537, 400, uniform),
        case("large", 300, 700, 2100, uniform),
        case("large, total = 1", 300, 700, 1, uniform),
        case("large, half", 300, 700, 105_000, uniform),
        case("large, all but one", 300, 700, 209_999, any_bits),
        case("large, all", 300, 700, 210_000, any_bits),
        case("large, after ReLU", 300, 700, 9000, |i| {
            if hash(i).is_multiple_of(50) {
                uniform(i ^ 77).max(0.0)
            } else {
                0.0
            }
        }),
        case("large, ties", 300, 700, 50_000, few_values),
        case("large, ties above the sample's bar", 300, 700, 3000, |i| {
            (hash(i) % 400) as f32
        }),
        case("large, NaN", 300, 700, 3000, special),
        case("large, all NaN", 300, 700, 3000, |_| f32::NAN),
        case("large, one column", 210_000, 1, 2100, uniform),
        case("more than 256 blocks", 1050, 2050, 33_000, uniform),
        case(
            "more than 256 blocks, ties",
            1050,
            2050,
            900_000,
            few_values,
        ),
    ]
}

/// The first of a stable sort by the documented order, put back in row-major order.
fn batch_oracle(case: &Case) -> Taken {
    let x = case.data();
    let class = |v: f32| (v.is_nan(), if v.is_nan() { 0.0 } else { v });
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| class(x[b]).partial_cmp(&class(x[a])).unwrap());
    order.truncate(case.k);
    let last = x[order[case.k - 1]];
    order.sort_unstable();
    Taken {
        values: order.iter().map(|&i| x[i].to_bits()).collect(),
        places: order.iter().map(|&i| i as i64).collect(),
        threshold: plain(last),
    }
}

/// Bits of a threshold: +0 for a zero, and one NaN for all.
fn plain(v: f32) -> u32 {
    match v {
        _ if v.is_nan() => f32::NAN.to_bits(),
        0.0 => 0,
        _ => v.to_bits(),
    }
}

fn run_batch(op: BatchOp, case: &Case, device: &Device) -> Taken {
    let best = op(case.tensor(device), case.k);
    let dims = (best.values.dims(), best.rows.dims(), best.columns.dims());
    assert_eq!(dims, ([case.k], [case.k], [case.k]), "{}", case.name);
    let rows = block_on(read_int(best.rows)).unwrap();
    let columns = block_on(read_int(best.columns)).unwrap();
    let values = block_on(read::<f32, 1>(best.values)).unwrap();
    let threshold = block_on(read::<f32, 1>(best.threshold)).unwrap();
    assert_eq!(threshold.len(), 1, "{}", case.name);
    assert!(columns.iter().all(|c| (0..case.n as i64).contains(c)));
    let places = rows.iter().zip(columns).map(|(r, c)| r * case.n as i64 + c);
    Taken {
        values: values.into_iter().map(f32::to_bits).collect(),
        places: places.collect(),
        threshold: threshold[0].to_bits(),
    }
}

/// Values, places and threshold must be the oracle's, bit for bit.
fn compare_batch(op: BatchOp, case: &Case, device: &Device) -> Result<(), String> {
    let (got, want) = (run_batch(op, case, device), batch_oracle(case));
    let differ = |i: &usize| got.places[*i] != want.places[*i] || got.values[*i] != want.values[*i];
    if let Some(i) = (0..case.k).find(differ) {
        let (place, wanted) = (got.places[i], want.places[i]);
        let name = case.name;
        let bits = (got.values[i], want.values[i]);
        return Err(format!(
            "{name}: slot {i} is of {place} for {wanted}, bits {bits:x?}"
        ));
    }
    match got.threshold == want.threshold {
        true => Ok(()),
        false => Err(format!("{}: threshold {:x}", case.name, got.threshold)),
    }
}

fn batch_suite(op: BatchOp, cases: &[Case], device: &Device) {
    for case in cases {
        compare_batch(op, case, device).unwrap();
    }
}

#[test]
fn the_cpu_form_of_batch_topk_is_right() {
    batch_suite(batch_topk, &batch_cases(), &Device::cpu());
    batch_suite(batch_topk, &large_batch_cases(), &Device::cpu());
}

#[test]
fn the_reference_of_batch_topk_is_right() {
    batch_suite(batch_topk_reference, &batch_cases(), &Device::cpu());
    batch_suite(batch_topk_reference, &large_batch_cases(), &Device::cpu());
}

/// A NaN may get other bits on the way to f64 and back; nothing else may.
#[test]
fn batch_topk_in_f64_takes_the_reference() {
    for case in batch_cases() {
        let x = case.tensor(&Device::cpu()).cast(burn::tensor::DType::F64);
        let (best, want) = (batch_topk(x, case.k), batch_oracle(&case));
        let values = block_on(read::<f64, 1>(best.values)).unwrap();
        let rows = block_on(read_int(best.rows)).unwrap();
        let columns = block_on(read_int(best.columns)).unwrap();
        let threshold = block_on(read::<f64, 1>(best.threshold)).unwrap()[0];
        let (name, n) = (case.name, case.n as i64);
        for (i, &place) in want.places.iter().enumerate() {
            assert_eq!((rows[i], columns[i]), (place / n, place % n), "{name}");
            let (got, want) = (values[i] as f32, f32::from_bits(want.values[i]));
            assert_eq!(plain(got), plain(want), "{name}");
        }
        assert_eq!(plain(threshold as f32), want.threshold, "{name}");
    }
}

#[test]
fn batch_topk_is_the_same_bits_on_any_number_of_threads() {
    let cases = large_batch_cases();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let all = || -> Vec<Taken> {
            let taken = |case| run_batch(batch_topk, case, &Device::cpu());
            cases.iter().map(taken).collect()
        };
        pool.build().unwrap().install(all)
    };
    let one = run(1);
    assert!([2, 7].into_iter().all(|threads| run(threads) == one));
}

#[test]
fn a_bad_total_panics_with_the_shapes() {
    for (n, d_sae, total) in [(2, 3, 0), (2, 3, 7), (0, 3, 1), (2, 0, 1)] {
        let x = Tensor::<2>::zeros([n, d_sae], Device::cpu().tensor());
        let panic = std::panic::catch_unwind(|| batch_topk(x, total))
            .map(|_| ())
            .unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        let want = format!("batch_topk: total = {total} of x [{n}, {d_sae}]");
        assert!(text.contains(&want), "{text}");
    }
}

/// The comparison must be able to fail: in a place among ties, in the bits of a zero, in the
/// threshold.
#[test]
fn planted_faults_in_batch_topk_are_caught() {
    fn last_of_equals(x: Tensor<2>, total: usize) -> BatchTopk {
        let [n, d_sae] = x.dims().map(|side| side as i64);
        let best = batch_topk(x.flip([0, 1]), total);
        BatchTopk {
            values: best.values.flip([0]),
            rows: best.rows.flip([0]).neg().add_scalar(n - 1),
            columns: best.columns.flip([0]).neg().add_scalar(d_sae - 1),
            ..best
        }
    }
    fn lost_sign(x: Tensor<2>, total: usize) -> BatchTopk {
        let best = batch_topk(x, total);
        let values = best.values.add_scalar(0.0);
        BatchTopk { values, ..best }
    }
    fn next_threshold(x: Tensor<2>, total: usize) -> BatchTopk {
        let best = batch_topk(x, total);
        let threshold = best.threshold.mul_scalar(1.0 + f32::EPSILON);
        BatchTopk { threshold, ..best }
    }
    let faults: [(BatchOp, Case, &str); 3] = [
        (last_of_equals, case("ties", 9, 513, 40, few_values), "slot"),
        (lost_sign, case("both zeros", 4, 300, 77, zeros), "bits"),
        (
            next_threshold,
            case("large", 9, 700, 40, uniform),
            "threshold",
        ),
    ];
    for (fault, case, what) in faults {
        let caught = compare_batch(fault, &case, &Device::cpu()).unwrap_err();
        assert!(caught.contains(what), "{caught}");
    }
}

#[test]
fn gradients_reach_the_places_of_batch_topk_on_the_cpu() {
    assert_eq!(batch_gradient(&Device::cpu()), expected_batch_gradient());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_of_batch_topk_are_right() {
    let gpu = gpu();
    batch_suite(batch_topk, &batch_cases(), &gpu);
    batch_suite(batch_topk, &large_batch_cases(), &gpu);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_reference_of_batch_topk_is_right_on_the_gpu() {
    let mut cases = batch_cases();
    cases.retain(|case| case.rows * case.n <= 5000);
    batch_suite(batch_topk_reference, &cases, &gpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn gradients_reach_the_places_of_batch_topk_on_the_gpu() {
    assert_eq!(batch_gradient(&gpu()), expected_batch_gradient());
}

const BATCH_GRADIENT: Case = case("gradient", 6, 70, 100, few_values);

/// The gradient of Σ weight · value + threshold, the weights different for every slot.
fn batch_gradient(device: &Device) -> Vec<f32> {
    let device = Device::from_burn(device.tensor().clone().autodiff());
    let x = BATCH_GRADIENT.tensor(&device).require_grad();
    let best = batch_topk(x.clone(), BATCH_GRADIENT.k);
    let weights: Vec<f32> = (1..=BATCH_GRADIENT.k).map(|i| i as f32).collect();
    let weights = Tensor::<1>::from_floats(weights.as_slice(), device.tensor());
    let grads = ((best.values * weights).sum() + best.threshold).backward();
    block_on(read(x.grad(&grads).unwrap())).unwrap()
}

/// The weights at the oracle's places: none for the threshold.
fn expected_batch_gradient() -> Vec<f32> {
    let mut gradient = vec![0.0; BATCH_GRADIENT.rows * BATCH_GRADIENT.n];
    for (i, place) in batch_oracle(&BATCH_GRADIENT).places.into_iter().enumerate() {
        gradient[place as usize] = i as f32 + 1.0;
    }
    gradient
}
