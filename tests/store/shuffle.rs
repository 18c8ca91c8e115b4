//! The shuffle buffer: every row once per epoch, the same order everywhere, well mixed.

use proptest::prelude::*;

use super::*;

/// A source whose rows hold their own number.
fn counting(rows: usize) -> Source {
    Source::memory("count", (0..rows).map(|i| i as f32).collect(), 1)
}

fn batches(rows: usize, seed: u64, buffer: usize, batch: usize) -> ShuffledBatches {
    ShuffledBatches::new(counting(rows), seed, buffer, batch).unwrap()
}

/// The next `steps` batches, joined.
fn serve(batches: &mut ShuffledBatches, steps: usize) -> Vec<usize> {
    let mut batch = Vec::new();
    let mut next = || {
        batches.next_batch(&mut batch).unwrap();
        batch.iter().map(|&v| v as usize).collect::<Vec<_>>()
    };
    (0..steps).flat_map(|_| next()).collect()
}

/// Whether each full epoch in `served` holds every row once.
fn once_per_epoch(served: &[usize], rows: usize) -> bool {
    served.chunks_exact(rows).all(|epoch| {
        let mut epoch = epoch.to_vec();
        epoch.sort_unstable();
        epoch.into_iter().eq(0..rows)
    })
}

/// Pearson correlation of the place in the order with the row's number.
fn correlation(order: &[usize]) -> f64 {
    let middle = (order.len() - 1) as f64 / 2.0;
    let place = |i: usize| i as f64 - middle;
    let product: f64 = order
        .iter()
        .enumerate()
        .map(|(i, &r)| place(i) * place(r))
        .sum();
    product / (0..order.len()).map(|i| place(i) * place(i)).sum::<f64>()
}

/// The share of neighbours in the order that were neighbours in the source.
fn kept_neighbours(order: &[usize]) -> f64 {
    let kept = order
        .windows(2)
        .filter(|w| w[0].abs_diff(w[1]) == 1)
        .count();
    kept as f64 / (order.len() - 1) as f64
}

/// Whether an order is as good as drawn blindly: five standard deviations for the correlation of
/// `blocks` blocks, and five times the two neighbours in n that chance keeps.
fn mixed(order: &[usize], blocks: usize, buffer: usize) -> bool {
    let neighbours = 5.0 * 2.0 / buffer as f64;
    correlation(order).abs() < 5.0 / (blocks as f64).sqrt() && kept_neighbours(order) < neighbours
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_row_comes_once_per_epoch(
        rows in 1usize..3000, seed: u64, buffer in 0usize..2000, batch in 1usize..700,
    ) {
        let mut batches = batches(rows, seed, buffer, batch);
        let served = serve(&mut batches, (3 * rows).div_ceil(batch));
        prop_assert_eq!(served.len() % batch, 0);
        prop_assert!(once_per_epoch(&served, rows));
        let (epoch, row) = batches.position();
        prop_assert_eq!(epoch as usize * rows + row, served.len());
    }

    #[test]
    fn seeking_equals_running(
        rows in 1usize..2000, seed: u64, buffer in 0usize..1000, batch in 1usize..300, step in 0usize..30,
    ) {
        let mut ran = batches(rows, seed, buffer, batch);
        serve(&mut ran, step);
        let mut sought = batches(rows, seed, buffer, batch);
        sought.seek(step as u64);
        prop_assert_eq!(sought.step(), ran.step());
        prop_assert_eq!(serve(&mut sought, 5), serve(&mut ran, 5));
        ran.seek(step as u64 / 2);
        sought.seek(step as u64 / 2);
        prop_assert_eq!(serve(&mut sought, 2), serve(&mut ran, 2));
    }

    #[test]
    fn the_seed_decides_the_order(rows in 100usize..2000, seed: u64, buffer in 64usize..1000) {
        let order = |seed| serve(&mut batches(rows, seed, buffer, rows), 2);
        let (first, again, other) = (order(seed), order(seed), order(seed.wrapping_add(1)));
        prop_assert_eq!(&first, &again);
        prop_assert_ne!(&first, &other);
        prop_assert_ne!(&first[..rows], &first[rows..]);
    }
}

#[test]
fn rows_are_mixed() {
    for (rows, buffer) in [
        (20_000, 4096),
        (50_000, BUFFER_ROWS),
        (200_000, BUFFER_ROWS),
    ] {
        let blocks = rows / (buffer / 64).min(256);
        for seed in 0..4 {
            let order = serve(&mut batches(rows, seed, buffer, rows), 1);
            assert!(
                mixed(&order, blocks, buffer.min(rows)),
                "{rows} {buffer} {seed}"
            );
        }
    }
}

/// The faults planted in the two checks above.
#[test]
fn poor_shuffles_are_noticed() {
    let straight: Vec<usize> = (0..20_000).collect();
    assert!(once_per_epoch(&straight, 20_000) && !mixed(&straight, 312, 4096));
    let blocks_only: Vec<usize> = (0..312)
        .flat_map(|b| (b * 125 % 312 * 64..).take(64))
        .collect();
    assert!(once_per_epoch(&blocks_only, 312 * 64) && !mixed(&blocks_only, 312, 4096));
    let mut twice = straight.clone();
    twice[7] = 8;
    assert!(!once_per_epoch(&twice, 20_000));
}

/// Written down once; a change here breaks everyone's seeds.
#[test]
fn the_order_of_a_seed_is_fixed() {
    let order = serve(&mut batches(1000, 42, 512, 12), 1);
    assert_eq!(
        order,
        [986, 397, 840, 565, 959, 183, 681, 642, 152, 320, 576, 389]
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &settings(vec![HookSpec::new("a", [2])]), 700);
    let source = Source::open(&dir.path().display().to_string()).unwrap();
    let order = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut batches = ShuffledBatches::new(source.clone(), 7, 1024, 100).unwrap();
        pool.install(|| serve(&mut batches, 30))
    };
    assert_eq!(order(1), order(5));
}

#[test]
fn a_part_of_a_source_serves_its_rows_only() {
    let source = counting(1000).sub(100..350).unwrap();
    let mut batches = ShuffledBatches::new(source, 3, 128, 250).unwrap();
    let mut order = serve(&mut batches, 1);
    order.sort_unstable();
    assert!(order.into_iter().eq(100..350));
}

#[test]
fn a_nan_row_is_an_error_each_time() {
    let mut values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    values[613] = f32::NAN;
    let source = Source::memory("holed", values, 1);
    let mut batches = ShuffledBatches::new(source, 1, 256, 10).unwrap();
    let mut out = Vec::new();
    let error = (0..100)
        .find_map(|_| batches.next_batch(&mut out).err())
        .unwrap();
    says(&error, &["holed", "row 613", "NaN"]);
    let step = batches.step();
    says(batches.next_batch(&mut out).unwrap_err(), &["row 613"]);
    assert_eq!(batches.step(), step);
}

#[test]
fn no_rows_is_an_error() {
    let source = Source::memory("nothing", Vec::new(), 4);
    says(
        ShuffledBatches::new(source, 0, 256, 1).err().unwrap(),
        &["nothing", "no rows"],
    );
}
