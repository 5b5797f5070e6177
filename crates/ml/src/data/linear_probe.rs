//! A linear classifier (softmax regression), by which tests measure what a data set gives away without structure.

/// One row: the features that are not zero.
pub(super) type Features = Vec<(usize, f32)>;

/// Rows with their classes.
pub(super) struct Rows {
    pub(super) features: Vec<Features>,
    pub(super) labels: Vec<u32>,
}

/// Learns by stochastic gradient descent, the rate falling linearly to 0, and gives the share of test rows it gets right.
pub(super) fn accuracy(train: &Rows, test: &Rows, width: usize, classes: usize, epochs: usize, rate: f32) -> f64 {
    let mut weights = vec![vec![0.0; classes]; width + 1];
    let steps = epochs * train.labels.len();
    for step in 0..steps {
        // A stride coprime to most sizes visits the rows in an order unlike that of the labels.
        let row = step * 7919 % train.labels.len();
        let rate = rate * (1.0 - step as f32 / steps as f32);
        learn(&mut weights, &train.features[row], train.labels[row], rate);
    }
    let right = test.features.iter().zip(&test.labels).filter(|(features, label)| {
        let scores = scores(&weights, features);
        let best = (0..classes).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
        best == **label as usize
    });
    right.count() as f64 / test.labels.len() as f64
}

/// Scores by class; the last row of weights is the bias.
fn scores(weights: &[Vec<f32>], features: &Features) -> Vec<f32> {
    let mut scores = weights[weights.len() - 1].clone();
    for (feature, value) in features {
        scores
            .iter_mut()
            .zip(&weights[*feature])
            .for_each(|(score, weight)| *score += weight * value);
    }
    scores
}

fn learn(weights: &mut [Vec<f32>], features: &Features, label: u32, rate: f32) {
    let scores = scores(weights, features);
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f32> = scores.iter().map(|score| (score - top).exp()).collect();
    let total: f32 = shares.iter().sum();
    let steps: Vec<f32> = (0u32..)
        .zip(&shares)
        .map(|(class, share)| rate * (f32::from(u8::from(class == label)) - share / total))
        .collect();
    let bias = weights.len() - 1;
    for (feature, value) in features.iter().chain([&(bias, 1.0)]) {
        weights[*feature]
            .iter_mut()
            .zip(&steps)
            .for_each(|(weight, step)| *weight += step * value);
    }
}
