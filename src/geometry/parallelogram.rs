use super::{Error, Matrix, at_least, silhouette};

/// Linear discriminant analysis: the directions in which classes differ most for how much they
/// scatter.
#[derive(Clone, Debug, PartialEq)]
pub struct Lda {
    mean: Vec<f64>,
    /// One direction a row, by falling ratio.
    axes: Matrix,
    /// Variance between classes over variance within, along each direction.
    pub ratios: Vec<f64>,
}

impl Lda {
    /// From points `[n, d]` and their classes: the up to `classes − 1` solutions `v` of
    /// `S_b v = λ S_w v`, with `S_b` the covariance of the class means (weighted by their points)
    /// and `S_w` that of points about them (Fisher 1936). Scaled so that points scatter by 1 about
    /// their class means along each.
    ///
    /// `shrinkage` γ takes `(1 − γ) S_w + γ tr(S_w) / d · I` for `S_w`: with fewer than several
    /// points a dimension it must be above 0.
    ///
    /// # Errors
    /// [`Error::TooFew`] for one class or a class a point; [`Error::Setting`] for a γ outside 0..1;
    /// [`Error::Undefined`] where classes do not scatter at all in some direction, with γ = 0.
    ///
    /// # Panics
    /// If there is not one class a point.
    ///
    /// # Cost
    /// `O(n d² + d³)`; holds a few `[d, d]`.
    pub fn fit(points: &Matrix, classes: &[usize], shrinkage: f64) -> Result<Self, Error> {
        let measure = "linear discriminant analysis";
        assert_eq!(points.rows(), classes.len(), "Lda::fit: a class a point");
        if !(0.0..1.0).contains(&shrinkage) {
            return Err(Error::Setting {
                name: "shrinkage",
                value: shrinkage,
                reason: "it must lie from 0 to below 1",
            });
        }
        let (means, kinds) = class_means(points, classes);
        at_least(measure, "classes", 2, kinds)?;
        at_least(measure, "points", kinds + 1, points.rows())?;
        let d = points.columns();
        let at = |i: usize, j: usize| points.row(i)[j] - means.row(i)[j];
        let within = Matrix::from_fn(points.rows(), d, at).covariance();
        let trace: f64 = (0..d).map(|j| within.row(j)[j]).sum();
        let within = Matrix::from_fn(d, d, |i, j| {
            let ridge = if i == j { trace / d as f64 } else { 0.0 };
            (1.0 - shrinkage) * within.row(i)[j] + shrinkage * ridge
        });
        let whitener = whitener(&within, measure)?;
        let between = means.covariance();
        let between = whitener.times_transposed(&between);
        let (ratios, turned) = between.times_transposed(&whitener).eigen(measure)?;
        let keep: Vec<usize> = (0..d.min(kinds - 1)).collect();
        let whitener = Matrix::from_fn(d, d, |i, j| whitener.row(j)[i]);
        Ok(Self {
            mean: points.mean(),
            axes: turned.select(&keep).times_transposed(&whitener),
            ratios: ratios[..keep.len()].to_vec(),
        })
    }

    /// Coordinates of points along the directions: `[n, classes − 1]`.
    ///
    /// # Panics
    /// If the points have another width.
    pub fn project(&self, points: &Matrix) -> Matrix {
        assert_eq!(points.columns(), self.mean.len(), "Lda::project: widths");
        points.less(&self.mean).times_transposed(&self.axes)
    }
}

/// For each point the mean of its class, and the number of classes.
fn class_means(points: &Matrix, classes: &[usize]) -> (Matrix, usize) {
    let mut members = std::collections::BTreeMap::<usize, Vec<usize>>::new();
    for (i, &class) in classes.iter().enumerate() {
        members.entry(class).or_default().push(i);
    }
    let kinds = members.len();
    let means: std::collections::BTreeMap<usize, Vec<f64>> = members
        .into_iter()
        .map(|(class, rows)| (class, points.select(&rows).mean()))
        .collect();
    let at = |i: usize, j: usize| means[&classes[i]][j];
    (Matrix::from_fn(points.rows(), points.columns(), at), kinds)
}

/// Rows `v_i / √λ_i` of a covariance's eigenvectors: what turns it into the identity.
fn whitener(covariance: &Matrix, measure: &'static str) -> Result<Matrix, Error> {
    let (values, vectors) = covariance.eigen(measure)?;
    let least = *values.last().expect("a covariance has a row");
    if least <= 1e-12 * values[0] {
        let why = "classes do not scatter in every direction: a shrinkage above 0 is needed";
        return Err(Error::Undefined { measure, why });
    }
    let d = values.len();
    Ok(Matrix::from_fn(d, d, |i, j| {
        vectors.row(i)[j] / values[i].sqrt()
    }))
}

/// How well differences of pairs group by relation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parallelograms {
    /// Silhouette of the differences as they are.
    pub before: f64,
    /// The same after LDA.
    pub after: f64,
}

/// Whether pairs of the same relation form parallelograms, as `queen − king` and `woman − man`
/// should: the silhouette of the differences `second − first` `[n, d]` by `relation`, before and
/// after projecting them onto the directions of an [`Lda`] by relation, which leaves out what
/// differs within a relation (word length, say).
///
/// Li et al. 2024 ("The geometry of concepts"), section 3. They fit the LDA on the pairs that they
/// show; here it is fitted on one half of each relation's pairs and measured on the other, both ways
/// round, since in many dimensions LDA separates any few points that it was fitted on.
///
/// # Errors
/// As for [`Lda::fit`] and [`silhouette`]; [`Error::TooFew`] for a relation with fewer than four
/// pairs.
///
/// # Panics
/// If the sides differ in shape, or there is not one relation a pair.
pub fn parallelogram_quality(
    first: &Matrix,
    second: &Matrix,
    relation: &[usize],
    shrinkage: f64,
) -> Result<Parallelograms, Error> {
    let shape = |m: &Matrix| [m.rows(), m.columns()];
    assert_eq!(shape(first), shape(second), "parallelogram_quality: shapes");
    let difference = |i: usize, j: usize| second.row(i)[j] - first.row(i)[j];
    let differences = Matrix::from_fn(first.rows(), first.columns(), difference);
    let halves = halves(relation)?;
    let (mut before, mut after) = (0.0, 0.0);
    for (fit, measure) in [(0, 1), (1, 0)] {
        let labels =
            |half: usize| -> Vec<usize> { halves[half].iter().map(|&i| relation[i]).collect() };
        let lda = Lda::fit(&differences.select(&halves[fit]), &labels(fit), shrinkage)?;
        let rows = differences.select(&halves[measure]);
        before += silhouette(&rows, &labels(measure))? / 2.0;
        after += silhouette(&lda.project(&rows), &labels(measure))? / 2.0;
    }
    Ok(Parallelograms { before, after })
}

/// Every second pair of each relation, and the others.
fn halves(relation: &[usize]) -> Result<[Vec<usize>; 2], Error> {
    let mut seen = std::collections::BTreeMap::<usize, usize>::new();
    let mut halves = [Vec::new(), Vec::new()];
    for (i, &kind) in relation.iter().enumerate() {
        let count = seen.entry(kind).or_insert(0);
        halves[*count % 2].push(i);
        *count += 1;
    }
    let least = seen.values().min().copied().unwrap_or(0);
    at_least("parallelogram quality", "pairs of each relation", 4, least)?;
    Ok(halves)
}
