use deepguard::ops::Backend;
use deepguard::ops::linear::{LoraBackward, LoraDown, LoraTerm, Write};
use deepguard::ops::matrix::Matrix;
use safetensors::Dtype;

use crate::ops_families::bench::{Act, Bench, Tensor, TestDropout, add, dot, gradient, product, transposed};

const RANK: usize = 3;
const WIDTH: usize = 21;
const SCALE: f32 = 1.75;

/// `scale · (factors ∘ x) Aᵀ`.
fn down(x: &[f64], a: &[f64], factors: &[f64]) -> Vec<f64> {
    let dropped: Vec<f64> = x.iter().zip(factors).map(|(x, f)| x * f).collect();
    product(&dropped, a, WIDTH).iter().map(|v| v * f64::from(SCALE)).collect()
}

fn factors<B: Backend>(dropout: &TestDropout<B>, drops: bool, rows: usize) -> Vec<f64> {
    if drops { dropout.factors(WIDTH) } else { vec![1.0; rows * WIDTH] }
}

pub fn lora_down<B: Backend>(backend: &B) {
    for (rows, drops) in [(1, false), (6, true), (40, true)] {
        let mut bench = Bench::new(backend);
        let (x, a) = (bench.act(rows * WIDTH, 1.0), bench.act(RANK * WIDTH, 1.0));
        let (mut xa, dropout) = (bench.act_out(rows * RANK), TestDropout::new(&bench, rows));
        let dropout_of_x = drops.then(|| dropout.argument());
        let adapter = LoraDown { xa: xa.view_mut(), a: a.view(), dropout: dropout_of_x };
        backend.lora_down(vec![adapter], x.view(), RANK, SCALE);
        bench.check("xa", &xa, &down(&x.host, &a.host, &factors(&dropout, drops, rows)));
    }
}

/// Two of three stacked projections are adapted, and only the first rows.
pub fn with_terms<B: Backend>(backend: &B) {
    let (rows, adapted, widths) = (9, 6, [5, 4, 8]);
    let out: usize = widths.iter().sum();
    for with_residual in [false, true] {
        let mut bench = Bench::new(backend);
        let (weight, values) = bench.weight(&widths, WIDTH, Dtype::F32);
        let x = bench.act(rows * WIDTH, 1.0);
        let (residual, mut y) = (bench.act(rows * out, 1.0), bench.act_out(rows * out));
        let mut expected = product(&x.host, &values, WIDTH);
        if with_residual {
            expected = add(&expected, &residual.host);
        }
        let adapters = [(0, widths[0]), (widths[0] + widths[1], widths[2])];
        let factors: Vec<_> = adapters
            .iter()
            .map(|&(column, n)| (column, n, bench.act(adapted * RANK, 1.0), bench.act(n * RANK, 1.0)))
            .collect();
        let mut terms = Vec::new();
        for (column, out_features, xa, b) in &factors {
            let (column, out_features) = (*column, *out_features);
            terms.push(LoraTerm { xa: xa.view(), b: b.view(), column, out_features, rank: RANK });
            for (i, v) in product(&xa.host, &b.host, RANK).into_iter().enumerate() {
                expected[i / out_features * out + column + i % out_features] += v;
            }
        }
        let write = if with_residual { Write::Residual(residual.view()) } else { Write::Overwrite };
        backend.linear(y.view_mut(), x.view(), &weight, None, &terms, write);
        bench.check("y", &y, &expected);
    }
}

/// dA, dB and dx against differences of `Σ dy ∘ (down(x) Bᵀ)`, dy being columns of a wider matrix.
pub fn lora_backward<B: Backend>(backend: &B) {
    let (rows, out) = (5, 7);
    for (drops, wants_dx) in [(false, true), (true, true), (true, false)] {
        let mut bench = Bench::new(backend);
        let (x, dy) = (bench.act(rows * WIDTH, 1.0), bench.act(rows * (out + 4), 1.0));
        let (a, b) = (bench.act(RANK * WIDTH, 1.0), bench.act(out * RANK, 1.0));
        let (mut da, mut db) = (bench.f32(RANK * WIDTH, 1.0), bench.f32(out * RANK, 1.0));
        let (mut dx, dropout) = (bench.act(rows * WIDTH, 1.0), TestDropout::new(&bench, rows));
        let factors = factors(&dropout, drops, rows);
        let xa = bench.act_of(&down(&x.host, &a.host, &factors));
        let adapter = LoraBackward {
            da_acc: da.view_mut(),
            db_acc: db.view_mut(),
            xa: xa.view(),
            dy: Matrix::new(dy.view(), rows, out + 4).columns(3, out),
            a: a.view(),
            b: b.view(),
            dropout: drops.then(|| dropout.argument()),
        };
        backend.lora_backward(wants_dx.then(|| dx.view_mut()), vec![adapter], x.view(), SCALE);
        let dy: Vec<f64> = dy.host.chunks(out + 4).flat_map(|row| row[3..3 + out].to_vec()).collect();
        let loss = |x: &[f64], a: &[f64], b: &[f64]| dot(&product(&down(x, a, &factors), b, RANK), &dy);
        let da_new = gradient(&a.host, |a| loss(&x.host, a, &b.host));
        let db_new = gradient(&b.host, |b| loss(&x.host, &a.host, b));
        let dx_new = gradient(&x.host, |x| loss(x, &a.host, &b.host));
        bench.check_f32("dA", &da.buffer, &add(&da.host, &da_new));
        bench.check_f32("dB", &db.buffer, &add(&db.host, &db_new));
        let dx_new = if wants_dx { dx_new } else { vec![0.0; rows * WIDTH] };
        bench.check("dx", &dx.buffer, &add(&dx.host, &dx_new));
    }
}

/// One of several adapters, and its expected results.
struct Adapter<B: Backend> {
    a: Act<B>,
    b: Act<B>,
    xa: Act<B>,
    da: Tensor<B, f32>,
    db: Tensor<B, f32>,
    dropout: TestDropout<B>,
    column: usize,
    out: usize,
    da_new: Vec<f64>,
    db_new: Vec<f64>,
}

/// Widths of whole vectors and others, ranks of one and several tiles, split-K over the rows, one adapter and
/// several, each with a dropout of its own and columns of dy.
pub fn lora_backward_shapes<B: Backend>(backend: &B) {
    for (rows, width, rank, outs) in [
        (70, 64, 8, &[40][..]),
        (40, 1032, 16, &[24, 136, 8]),
        (600, 72, 24, &[136]),
        (600, 72, 3, &[72, 40]),
        (17, 1056, 40, &[8, 8]),
        (130, 77, 64, &[67, 9, 70]),
        (3, 40, 8, &[8; 7]),
    ] {
        let mut bench = Bench::new(backend);
        let (total, what) = (outs.iter().sum::<usize>(), format!("{rows} {width} {rank} {outs:?}"));
        let (x, dy) = (bench.act(rows * width, 0.5), bench.act(rows * total, 0.3));
        let scaled = |values: Vec<f64>| values.iter().map(|v| v * f64::from(SCALE)).collect::<Vec<f64>>();
        let mut dx = bench.act(rows * width, 1.0);
        let (mut adapters, mut dx_new, mut column) = (Vec::new(), dx.host.clone(), 0);
        for (site, &out) in outs.iter().enumerate() {
            let dropout = TestDropout::with_site(&bench, rows, site as u32);
            let factors = dropout.factors(width);
            let (a, b) = (bench.act(rank * width, 0.2), bench.act(out * rank, 0.2));
            let (da, db) = (bench.f32(rank * width, 1.0), bench.f32(out * rank, 1.0));
            let dropped: Vec<f64> = x.host.iter().zip(&factors).map(|(x, f)| x * f).collect();
            let xa = bench.act_of(&scaled(product(&dropped, &a.host, width)));
            let own_dy: Vec<f64> =
                dy.host.chunks(total).flat_map(|row| row[column..column + out].to_vec()).collect();
            let t = scaled(product(&own_dy, &transposed(&b.host, rank), out));
            let da_new = product(&transposed(&t, rank), &transposed(&dropped, width), rows);
            let db_new = product(&transposed(&own_dy, out), &transposed(&xa.host, rank), rows);
            let through = product(&t, &transposed(&a.host, width), rank);
            dx_new.iter_mut().zip(through.iter().zip(&factors)).for_each(|(dx, (v, f))| *dx += v * f);
            adapters.push(Adapter { a, b, xa, da, db, dropout, column, out, da_new, db_new });
            column += out;
        }

        let mut xas: Vec<_> = adapters.iter().map(|_| bench.act_out(rows * rank)).collect();
        let downs = adapters.iter().zip(&mut xas).map(|(adapter, xa)| {
            let dropout = Some(adapter.dropout.argument());
            LoraDown { xa: xa.view_mut(), a: adapter.a.view(), dropout }
        });
        backend.lora_down(downs.collect(), x.view(), rank, SCALE);
        for (i, (adapter, xa)) in adapters.iter().zip(&xas).enumerate() {
            let dropped = x.host.iter().zip(adapter.dropout.factors(width)).map(|(x, f)| x * f);
            let expected = scaled(product(&dropped.collect::<Vec<_>>(), &adapter.a.host, width));
            bench.check(&format!("xa {i} {what}"), xa, &expected);
        }

        let backwards = adapters.iter_mut().map(|adapter| LoraBackward {
            da_acc: adapter.da.buffer.view_mut(),
            db_acc: adapter.db.buffer.view_mut(),
            xa: adapter.xa.view(),
            dy: Matrix::new(dy.view(), rows, total).columns(adapter.column, adapter.out),
            a: adapter.a.view(),
            b: adapter.b.view(),
            dropout: Some(adapter.dropout.argument()),
        });
        backend.lora_backward(Some(dx.view_mut()), backwards.collect(), x.view(), SCALE);
        for (i, Adapter { da, db, da_new, db_new, .. }) in adapters.iter().enumerate() {
            bench.check_f32(&format!("dA {i} {what}"), &da.buffer, &add(&da.host, da_new));
            bench.check_f32(&format!("dB {i} {what}"), &db.buffer, &add(&db.host, db_new));
        }
        bench.check(&format!("dx {what}"), &dx.buffer, &dx_new);
    }
}

/// Twice as many blocks of rows as a GPU has multiprocessors, so that adapters share blocks: their number,
/// widths that warps share evenly and others, whole vectors or not, ranks that blocks share. An adapter gives
/// the same with others as alone.
pub fn lora_down_of_many_rows<B: Backend>(backend: &B) {
    let rows = 9581;
    for (width, rank, count) in [(552, 12, 3), (40, 16, 1), (88, 8, 2), (24, 5, 4), (19, 4, 2), (24, 20, 2)] {
        let mut bench = Bench::new(backend);
        let x = bench.act(rows * width, 0.5);
        let adapters: Vec<_> = (0..count)
            .map(|site| (bench.act(rank * width, 0.2), TestDropout::with_site(&bench, rows, site)))
            .collect();
        // The second of several has no dropout.
        let drops = |site: usize| site != 1;
        let run = |sites: std::ops::Range<usize>| {
            let mut xas: Vec<_> = sites.clone().map(|_| bench.act_out(rows * rank)).collect();
            let downs = sites.zip(&mut xas).map(|(site, xa)| {
                let (a, dropout) = &adapters[site];
                let dropout = drops(site).then(|| dropout.argument());
                LoraDown { xa: xa.view_mut(), a: a.view(), dropout }
            });
            backend.lora_down(downs.collect(), x.view(), rank, SCALE);
            xas
        };
        for (site, xa) in run(0..adapters.len()).iter().enumerate() {
            let (a, dropout) = &adapters[site];
            let what = format!("xa {site} of {count} {width} {rank}");
            let factors = if drops(site) { dropout.factors(width) } else { vec![1.0; rows * width] };
            let dropped: Vec<_> = x.host.iter().zip(factors).map(|(x, f)| x * f).collect();
            let expected = product(&dropped, &a.host, width);
            let expected: Vec<_> = expected.into_iter().map(|v| v * f64::from(SCALE)).collect();
            bench.check(&what, xa, &expected);
            let alone = run(site..site + 1);
            let bits = |xa| backend.download_act(xa);
            assert_eq!(bits(xa.view()), bits(alone[0].view()), "{what}: alone");
        }
    }
}

/// The mask of a row follows its key, wherever a batch puts the row.
pub fn lora_dropout<B: Backend>(backend: &B) {
    let rows = 6;
    let mut bench = Bench::new(backend);
    let row = bench.values(WIDTH, 1.0);
    let (x, identity) = (bench.act_of(&row.repeat(rows)), bench.act_of(&unit_matrix(WIDTH)));
    let dropout = TestDropout::new(&bench, rows);
    let run = |from: usize, to: usize| {
        let mut out = bench.act_out((to - from) * WIDTH);
        let x = x.view().slice(from * WIDTH..to * WIDTH);
        let mut argument = dropout.argument();
        argument.row_keys = argument.row_keys.slice(from..to);
        let adapter = LoraDown { xa: out.view_mut(), a: identity.view(), dropout: Some(argument) };
        backend.lora_down(vec![adapter], x, WIDTH, 1.0);
        backend.download_act(out.view())
    };
    let all = run(0, rows);
    assert_eq!(all[2 * WIDTH..5 * WIDTH], run(2, 5));
    assert!(all[..WIDTH] != all[WIDTH..2 * WIDTH], "two rows with one mask");
}

fn unit_matrix(n: usize) -> Vec<f64> {
    (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect()
}
