//! The grouping by latent against a stable sort.

use burn::tensor::DType;
use inscape::ops::{ByLatent, by_latent, by_latent_reference};

use super::batch::{integers, panic_of, same_on_any_threads};
use super::*;

type Op = fn(Tensor<1, Int>, Tensor<1, Int>, usize) -> ByLatent;

struct Entries {
    name: &'static str,
    e: usize,
    d_sae: usize,
    latent: fn(usize, usize) -> usize,
    strided: bool,
}

fn entries(name: &'static str, e: usize, d_sae: usize) -> Entries {
    Entries {
        name,
        e,
        d_sae,
        latent: |i, d_sae| hash(i ^ 0x77) as usize % d_sae,
        strided: false,
    }
}

/// The sort takes digits of 8 bits, one more where `d_sae` is a power of 256, blocks of 1,024 entries
/// by 256 threads, and sums up 4,096 counts (16 blocks) at a time.
fn cases() -> Vec<Entries> {
    let latent = |latent, case| Entries { latent, ..case };
    vec![
        entries("one", 1, 1),
        entries("one latent", 700, 1),
        entries("one entry", 1, 1000),
        entries("e = threads - 1", 255, 10),
        entries("e = threads", 256, 10),
        entries("e = threads + 1", 257, 10),
        entries("e = block - 1", 1023, 99),
        entries("e = block", 1024, 99),
        entries("e = block + 1", 1025, 99),
        entries("16 blocks", 16_384, 300),
        entries("17 blocks", 16_385, 300),
        entries("40 blocks", 40_000, 3072),
        entries("d_sae = 255", 3000, 255),
        entries("d_sae = 256", 3000, 256),
        entries("d_sae = 257", 3000, 257),
        entries("d_sae = 65,535", 3000, 65_535),
        entries("d_sae = 65,536", 3000, 65_536),
        entries("d_sae = 65,537", 3000, 65_537),
        entries("d_sae = 2^20", 5000, 1 << 20),
        latent(|i, _| i, entries("rising", 2500, 2500)),
        latent(|i, d| d - 1 - i % d, entries("falling", 2500, 1300)),
        latent(|_, d| d - 1, entries("the last only", 2500, 600)),
        latent(|_, _| 0, entries("the first only", 2500, 600)),
        latent(|i, _| i % 2 * 256, entries("equal low digits", 2500, 600)),
        Entries {
            strided: true,
            ..entries("strided", 1500, 400)
        },
    ]
}

impl Entries {
    fn latents(&self) -> Vec<i64> {
        let latent = |i| (self.latent)(i, self.d_sae) as i64;
        (0..self.e).map(latent).collect()
    }

    fn rows(&self) -> Vec<i64> {
        (0..self.e).map(|i| i64::from(hash(i) >> 8)).collect()
    }

    fn tensor(&self, values: Vec<i64>, on: &Device, dtype: DType) -> Tensor<1, Int> {
        if !self.strided {
            let data = TensorData::new(values, [self.e]);
            return Tensor::from_data(data, (on.tensor(), dtype));
        }
        let pairs = values.iter().flat_map(|&v| [0, v]).collect();
        let data = TensorData::new(pairs, [self.e, 2]);
        let pairs = Tensor::<2, Int>::from_data(data, (on.tensor(), dtype));
        pairs.slice([0..self.e, 1..2]).squeeze_dim(1)
    }

    fn run(&self, op: Op, on: &Device, dtype: DType) -> [Vec<i64>; 3] {
        let latents = self.tensor(self.latents(), on, dtype);
        read_groups(op(latents, self.tensor(self.rows(), on, dtype), self.d_sae))
    }
}

fn read_groups(groups: ByLatent) -> [Vec<i64>; 3] {
    let all = [groups.starts, groups.entries, groups.rows];
    all.map(|x| {
        assert_eq!(x.dtype(), DType::I32);
        integers(x)
    })
}

/// Starts, entries and rows. Latents that are not below `d_sae` belong to no group.
fn oracle(latents: &[i64], rows: &[i64], d_sae: usize) -> [Vec<i64>; 3] {
    let key = |i: usize| usize::try_from(latents[i]).unwrap_or(d_sae).min(d_sae);
    let mut order: Vec<usize> = (0..latents.len()).collect();
    order.sort_by_key(|&i| key(i));
    let mut starts = vec![0i64; d_sae + 1];
    let below = |i: &usize| key(*i) < d_sae;
    for i in (0..latents.len()).filter(below) {
        starts[key(i) + 1] += 1;
    }
    for f in 0..d_sae {
        starts[f + 1] += starts[f];
    }
    let entries = order.iter().map(|&i| i as i64).collect();
    [starts, entries, order.iter().map(|&i| rows[i]).collect()]
}

fn compare(op: Op, case: &Entries, on: &Device, dtype: DType) -> Result<(), String> {
    let got = case.run(op, on, dtype);
    let want = oracle(&case.latents(), &case.rows(), case.d_sae);
    for ((got, want), what) in got.iter().zip(want).zip(["starts", "entries", "rows"]) {
        assert_eq!(got.len(), want.len(), "{}: {what}", case.name);
        if let Some(i) = (0..got.len()).find(|&i| got[i] != want[i]) {
            let (name, got, want) = (case.name, got[i], want[i]);
            return Err(format!("{name}: {what}[{i}] is {got}, not {want}"));
        }
    }
    Ok(())
}

fn suite(op: Op, on: &Device, dtypes: &[DType]) {
    for case in cases() {
        for &dtype in dtypes {
            compare(op, &case, on, dtype).unwrap();
        }
    }
}

#[test]
fn the_cpu_form_is_right() {
    suite(by_latent, &Device::cpu(), &[DType::I32, DType::I64]);
}

#[test]
fn the_reference_is_right() {
    let both = [DType::I32, DType::I64];
    suite(by_latent_reference, &Device::cpu(), &both);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_are_right() {
    suite(by_latent, &gpu(), &[DType::I32]);
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn the_shaders_leave_the_given_latents_alone() {
    let (case, on) = (entries("three digits", 1500, 70_000), gpu());
    let latents = case.tensor(case.latents(), &on, DType::I32);
    let rows = || case.tensor(case.rows(), &on, DType::I32);
    let first = read_groups(by_latent(latents.clone(), rows(), case.d_sae));
    let again = read_groups(by_latent(latents.clone(), rows(), case.d_sae));
    assert_eq!(first, again);
    assert_eq!(integers(latents), case.latents());
}

/// On every device: no entries, and no latents either.
fn nothing_is_grouped(op: Op, on: &Device) {
    for d_sae in [0, 1, 300] {
        let none = || Tensor::<1, Int>::zeros([0], (on.tensor(), DType::I32));
        let [starts, entries, rows] = read_groups(op(none(), none(), d_sae));
        assert_eq!(starts, vec![0; d_sae + 1]);
        assert!(entries.is_empty() && rows.is_empty());
    }
}

#[test]
fn nothing_is_grouped_on_the_cpu() {
    nothing_is_grouped(by_latent, &Device::cpu());
    nothing_is_grouped(by_latent_reference, &Device::cpu());
}

#[test]
#[ignore = "needs a wgpu adapter"]
fn nothing_is_grouped_on_the_gpu() {
    nothing_is_grouped(by_latent, &gpu());
}

/// Also where `d_sae` is a power of 256, all digits of which are taken.
#[test]
#[ignore = "needs a wgpu adapter"]
fn latents_out_of_range_belong_to_no_group_on_the_gpu() {
    let on = gpu();
    for d_sae in [1, 10, 255, 256, 257] {
        let bad = [-1, i64::from(i32::MIN), i64::from(i32::MAX), d_sae as i64];
        let latent = |i: usize| match hash(i) % 9 {
            out @ 0..4 => bad[out as usize],
            _ => i64::from(hash(i + 50)) % d_sae as i64,
        };
        let latents: Vec<i64> = (0..1300).map(latent).collect();
        let rows: Vec<i64> = (0..1300).collect();
        let ints = |v: &[i64]| {
            let data = TensorData::new(v.to_vec(), [v.len()]);
            Tensor::<1, Int>::from_data(data, (on.tensor(), DType::I32))
        };
        let got = read_groups(by_latent(ints(&latents), ints(&rows), d_sae));
        assert_eq!(got, oracle(&latents, &rows, d_sae), "{d_sae}");
    }
}

#[test]
fn rows_of_a_batch_are_its_own() {
    let on = Device::cpu();
    let indices = Tensor::<2, Int>::from_data([[4, 0], [0, 0], [3, 4]], on.tensor());
    let groups = ByLatent::of(&indices, 5);
    assert_eq!(groups.d_sae(), 5);
    let want = oracle(&[4, 0, 0, 0, 3, 4], &[0, 0, 1, 1, 2, 2], 5);
    assert_eq!(read_groups(groups), want);
}

/// Two entries of one latent in the wrong order, and a group one too long, must show.
#[test]
fn planted_faults_are_caught() {
    fn last_first(latents: Tensor<1, Int>, rows: Tensor<1, Int>, d_sae: usize) -> ByLatent {
        let last = latents.dims()[0] as i64 - 1;
        let groups = by_latent(latents.flip([0]), rows.flip([0]), d_sae);
        ByLatent {
            entries: groups.entries.neg().add_scalar(last),
            ..groups
        }
    }
    fn one_too_long(latents: Tensor<1, Int>, rows: Tensor<1, Int>, d_sae: usize) -> ByLatent {
        let groups = by_latent(latents, rows, d_sae);
        let late: Vec<i32> = (0..=d_sae).map(|f| i32::from(f == 7)).collect();
        let late = Tensor::<1, Int>::from_data(&late[..], &groups.starts.device());
        let starts = groups.starts.clone() + late.cast(DType::I32);
        ByLatent { starts, ..groups }
    }
    let (case, on) = (entries("ties", 1500, 40), Device::cpu());
    let error = |op| compare(op, &case, &on, DType::I32).unwrap_err();
    assert!(error(last_first).contains("entries["));
    assert!(error(one_too_long).contains("starts[7]"));
}

#[test]
fn the_same_on_any_number_of_threads() {
    let case = entries("40 blocks", 40_000, 3072);
    assert!(same_on_any_threads(|| case.run(
        by_latent,
        &Device::cpu(),
        DType::I32
    )));
}

#[test]
fn wrong_input_panics_with_the_op() {
    let on = Device::cpu();
    let zeros = |e| Tensor::<1, Int>::zeros([e], on.tensor());
    let lengths = panic_of(|| by_latent(zeros(3), zeros(2), 5));
    assert!(lengths.contains("by_latent: 3 latents, 2 rows"));
    for bad in [5i64, -1, 1 << 32] {
        let latents = Tensor::<1, Int>::from_data([0, bad, 1], (on.tensor(), DType::I64));
        let text = panic_of(|| by_latent(latents, zeros(3), 5));
        let want = format!("by_latent: index {bad} of 5 latents");
        assert!(text.contains(&want), "{text}");
    }
}
