use std::{collections::BTreeMap, fmt, ops::Index};

use globset::GlobBuilder;

use super::activation::Rank;
use super::{Activation, Error, HookPoint, Site};

type EditFn = dyn Fn(Site, Activation) -> Activation + Send + Sync;

/// What one forward call observes and edits.
///
/// Names are TransformerLens's; `*` in a glob stands for any run of characters. Edits at a
/// site run in the order they were added, captures see the tensor after all edits of that site.
///
/// ```
/// use inscape::hook::Hooks;
/// let hooks = Hooks::new().capture("blocks.*.hook_resid_post").edit("blocks.0.attn.hook_z", |_, z| z);
/// assert!(!hooks.is_empty());
/// ```
#[derive(Default)]
pub struct Hooks {
    captures: Vec<String>,
    edits: Vec<(String, Box<EditFn>)>,
    stop_after_last: bool,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edits: Vec<&String> = self.edits.iter().map(|(name, _)| name).collect();
        f.debug_struct("Hooks")
            .field("captures", &self.captures)
            .field("edits", &edits)
            .finish()
    }
}

impl Hooks {
    /// Observes nothing and changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the activations at every point that the name or glob matches.
    pub fn capture(mut self, pattern: impl Into<String>) -> Self {
        self.captures.push(pattern.into());
        self
    }

    /// Replaces the activation at every matching point by what `edit` returns for it, which
    /// must have the same shape.
    pub fn edit(
        mut self,
        pattern: impl Into<String>,
        edit: impl Fn(Site, Activation) -> Activation + Send + Sync + 'static,
    ) -> Self {
        self.edits.push((pattern.into(), Box::new(edit)));
        self
    }

    /// Ends the forward pass after the last block that a hook needs: no logits then.
    pub fn stop_after_last(mut self) -> Self {
        self.stop_after_last = true;
        self
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.captures.is_empty() && self.edits.is_empty()
    }

    /// The points of `points` that the capture patterns match, in the order of `points`.
    ///
    /// # Errors
    /// [`Error::Unknown`] or [`Error::BadPattern`] names the pattern.
    pub fn captured_points(&self, points: &[HookPoint]) -> Result<Vec<HookPoint>, Error> {
        let mut wanted = vec![false; points.len()];
        for pattern in &self.captures {
            matching(pattern, points)?
                .into_iter()
                .for_each(|i| wanted[i] = true);
        }
        Ok(points
            .iter()
            .zip(wanted)
            .filter(|(_, w)| *w)
            .map(|(p, _)| p.clone())
            .collect())
    }

    /// Binds the patterns to a model's points for one call.
    ///
    /// # Errors
    /// [`Error::Unknown`] or [`Error::BadPattern`] names the pattern.
    pub fn bind(&self, points: &[HookPoint]) -> Result<Tap<'_>, Error> {
        let mut tap = Tap {
            stop_after_last: self.stop_after_last,
            ..Tap::none()
        };
        for point in self.captured_points(points)? {
            tap.plan.entry(point.site).or_default().capture = true;
        }
        for (pattern, edit) in &self.edits {
            for i in matching(pattern, points)? {
                tap.plan
                    .entry(points[i].site)
                    .or_default()
                    .edits
                    .push(edit.as_ref());
            }
        }
        tap.pending = tap.plan.len();
        Ok(tap)
    }
}

/// Whether a hook name matches a name or glob; no name matches a glob that is malformed.
pub fn matches(pattern: &str, name: &str) -> bool {
    let glob = GlobBuilder::new(pattern).literal_separator(false).build();
    glob.is_ok_and(|g| g.compile_matcher().is_match(name))
}

fn matching(pattern: &str, points: &[HookPoint]) -> Result<Vec<usize>, Error> {
    let glob = GlobBuilder::new(pattern).literal_separator(false).build();
    let glob = glob.map_err(|e| Error::BadPattern {
        pattern: pattern.into(),
        reason: e.kind().to_string(),
    })?;
    let matcher = glob.compile_matcher();
    let found: Vec<usize> = (0..points.len())
        .filter(|&i| matcher.is_match(points[i].site.to_string()))
        .collect();
    if found.is_empty() {
        Err(unknown(pattern, points))
    } else {
        Ok(found)
    }
}

fn unknown(pattern: &str, points: &[HookPoint]) -> Error {
    let names: Vec<String> = points.iter().map(|p| p.site.to_string()).collect();
    let close = names.iter().map(|n| (distance(pattern, n), n)).min();
    let hint = match close {
        Some((d, name)) if d <= 1 + pattern.len() / 4 => format!(" (did you mean `{name}`?)"),
        _ => String::new(),
    };
    let step = (names.len() / 4).max(1);
    let examples = names
        .iter()
        .step_by(step)
        .take(4)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    Error::Unknown {
        pattern: pattern.into(),
        hint,
        count: names.len(),
        examples,
    }
}

/// Levenshtein distance, for the hint in an error.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (j, y) in b.bytes().enumerate() {
            let above = row[j + 1];
            row[j] = left;
            left = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(above + 1);
            diagonal = above;
        }
        row[b.len()] = left;
    }
    row[b.len()]
}

#[derive(Default)]
struct Plan<'a> {
    capture: bool,
    edits: Vec<&'a EditFn>,
    fired: bool,
}

/// The hooks of one forward call while it runs: models call [`Tap::at`] at every site.
pub struct Tap<'a> {
    plan: BTreeMap<Site, Plan<'a>>,
    captured: BTreeMap<Site, Activation>,
    pending: usize,
    stop_after_last: bool,
}

impl Tap<'_> {
    /// A tap that observes nothing.
    pub fn none() -> Self {
        Tap {
            plan: BTreeMap::new(),
            captured: BTreeMap::new(),
            pending: 0,
            stop_after_last: false,
        }
    }

    /// Passes the tensor at `site` through this call's edits and keeps it if asked for. Costs
    /// one map lookup, and no copy, where nothing was asked for.
    ///
    /// # Panics
    /// If an edit changed the shape.
    pub fn at<const D: usize>(
        &mut self,
        site: Site,
        x: burn::tensor::Tensor<D>,
    ) -> burn::tensor::Tensor<D>
    where
        burn::tensor::Tensor<D>: Rank,
    {
        let Some(plan) = self.plan.get_mut(&site) else {
            return x;
        };
        let shape = x.shape();
        let mut act = x.wrap();
        for edit in &plan.edits {
            act = edit(site, act);
            assert!(
                act.shape() == shape,
                "edit at {site}: shape {shape:?} became {:?}",
                act.shape()
            );
        }
        if !std::mem::replace(&mut plan.fired, true) {
            self.pending -= 1;
        }
        if plan.capture {
            self.captured.insert(site, act.clone());
        }
        Rank::unwrap(act)
    }

    /// Whether this call wants what passes at `site`, and whether it changes it: for what a model makes
    /// only when asked.
    pub fn wants(&self, site: Site) -> Option<bool> {
        self.plan.get(&site).map(|plan| !plan.edits.is_empty())
    }

    /// Whether the caller wants no more than what has already fired.
    pub fn done(&self) -> bool {
        self.stop_after_last && self.pending == 0
    }

    /// The activations kept.
    ///
    /// # Errors
    /// [`Error::Unfired`] if a point that was asked for was never reached.
    pub fn finish(self) -> Result<Captured, Error> {
        let unfired: Vec<String> = self
            .plan
            .iter()
            .filter(|(_, p)| !p.fired)
            .map(|(s, _)| s.to_string())
            .collect();
        if unfired.is_empty() {
            Ok(Captured(self.captured))
        } else {
            Err(Error::Unfired(unfired.join(", ")))
        }
    }
}

/// The activations that one call kept, by hook name.
#[derive(Clone, Debug)]
pub struct Captured(BTreeMap<Site, Activation>);

impl Captured {
    /// The activation at `name`.
    ///
    /// # Errors
    /// [`Error::NotCaptured`] if it was not asked for.
    pub fn get(&self, name: &str) -> Result<&Activation, Error> {
        let site = name.parse::<Site>().ok();
        site.and_then(|s| self.0.get(&s))
            .ok_or_else(|| Error::NotCaptured(name.into()))
    }

    /// Every site kept, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Site, &Activation)> {
        self.0.iter().map(|(s, a)| (*s, a))
    }
}

impl Index<&str> for Captured {
    type Output = Activation;

    /// # Panics
    /// If the name was not captured; [`Captured::get`] returns an error instead.
    fn index(&self, name: &str) -> &Activation {
        self.get(name).unwrap_or_else(|e| panic!("{e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::BlockSite;
    use burn::tensor::{Device, Tensor};

    fn points() -> Vec<HookPoint> {
        let block = |l| {
            [BlockSite::ResidPre, BlockSite::ResidPost]
                .map(|s| HookPoint::rows(Site::Block(l, s), 2))
        };
        (0..12).flat_map(block).collect()
    }

    fn ones() -> Tensor<3> {
        Tensor::ones([1, 1, 2], &Device::flex())
    }

    #[test]
    fn globs_match_like_names() {
        let hooks = Hooks::new().capture("blocks.1*.hook_resid_post");
        let names: Vec<String> = hooks
            .captured_points(&points())
            .unwrap()
            .iter()
            .map(|p| p.site.to_string())
            .collect();
        assert_eq!(
            names,
            [
                "blocks.1.hook_resid_post",
                "blocks.10.hook_resid_post",
                "blocks.11.hook_resid_post"
            ]
        );
    }

    #[test]
    fn an_unknown_name_is_an_error_with_a_hint() {
        let error = Hooks::new()
            .capture("blocks.3.hook_resid_pos")
            .bind(&points())
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains("did you mean `blocks.3.hook_resid_post`"),
            "{error}"
        );
    }

    #[test]
    fn a_point_that_never_fires_is_an_error() {
        let hooks = Hooks::new().capture("blocks.0.hook_resid_*");
        let mut tap = hooks.bind(&points()).unwrap();
        tap.at(Site::Block(0, BlockSite::ResidPre), ones());
        assert_eq!(
            tap.finish().unwrap_err(),
            Error::Unfired("blocks.0.hook_resid_post".into())
        );
    }

    #[test]
    fn edits_run_in_order_and_captures_see_them() {
        let hooks = Hooks::new()
            .edit("blocks.0.hook_resid_pre", |_, a| {
                Activation::R3(a.r3() + 1.0)
            })
            .edit("blocks.0.hook_resid_pre", |_, a| {
                Activation::R3(a.r3() * 3.0)
            })
            .capture("blocks.0.hook_resid_pre")
            .stop_after_last();
        let mut tap = hooks.bind(&points()).unwrap();
        assert!(!tap.done());
        let out = tap.at(Site::Block(0, BlockSite::ResidPre), ones());
        assert!(tap.done());
        assert_eq!(out.into_data().try_to_vec::<f32>().unwrap(), [6.0, 6.0]);
        let kept = tap.finish().unwrap()["blocks.0.hook_resid_pre"].clone();
        assert_eq!(
            kept.r3().into_data().try_to_vec::<f32>().unwrap(),
            [6.0, 6.0]
        );
    }

    #[test]
    #[should_panic(expected = "edit at blocks.0.hook_resid_pre: shape")]
    fn an_edit_may_not_change_the_shape() {
        let hooks = Hooks::new().edit("blocks.0.hook_resid_pre", |_, a| {
            Activation::R3(a.r3().repeat_dim(1, 2))
        });
        hooks
            .bind(&points())
            .unwrap()
            .at(Site::Block(0, BlockSite::ResidPre), ones());
    }

    #[test]
    fn levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
