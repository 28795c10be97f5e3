//! How it is shown: median and minimum of each engine, and how many times as much as Catamaran's.

use super::case::Case;
use super::engine::Kind;
use super::measure::Sample;

/// Prints a table for a case.
pub(crate) fn print(case: Case, samples: &[Sample]) {
    println!("\n## {}\n", case.name());
    let memory = case == Case::Memory;
    if memory {
        println!("| engine | KiB (PSS, without the payload), median / min | × cata |");
        println!("|---|---|---|");
    } else {
        println!("| engine | wall ms, median / min | × cata | CPU ms, median / min | × cata |");
        println!("|---|---|---|---|---|");
    }
    let ours = samples.iter().find(|sample| sample.kind == Kind::Cata);
    let ratio = |values: &[f64], of: fn(&Sample) -> &Vec<f64>| {
        ours.map_or_else(|| "–".to_owned(), |ours| format!("{:.1}", median(values) / median(of(ours))))
    };
    for sample in samples {
        let name = sample.kind.name();
        if memory {
            let kib = &sample.memory_kib;
            println!(
                "| {name} | {:.0} / {:.0} | {} |",
                median(kib),
                least(kib),
                ratio(kib, |s| &s.memory_kib)
            );
            continue;
        }
        let (wall, cpu) = (&sample.wall_ms, &sample.cpu_ms);
        println!(
            "| {name} | {:.1} / {:.1} | {} | {:.1} / {:.1} | {} |",
            median(wall),
            least(wall),
            ratio(wall, |s| &s.wall_ms),
            median(cpu),
            least(cpu),
            ratio(cpu, |s| &s.cpu_ms)
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_even_and_odd() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
