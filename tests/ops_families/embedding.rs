use deepguard::ops::Backend;
use safetensors::Dtype;

use super::bench::Bench;

const IDS: [u32; 6] = [4, 0, 4, 10, 1, 4];
const VOCAB: usize = 11;
const WIDTH: usize = 19;

fn rows_of(table: &[f64]) -> Vec<f64> {
    IDS.iter().flat_map(|&id| table[id as usize * WIDTH..][..WIDTH].to_vec()).collect()
}

pub fn embed<B: Backend>(backend: &B) {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let mut bench = Bench::new(backend);
        let (table, values) = bench.weight(&[VOCAB], WIDTH, dtype);
        let (ids, mut out) = (bench.integers(&IDS), bench.act_out(IDS.len() * WIDTH));
        backend.embed(out.view_mut(), &table, ids.view());
        bench.check("rows", &out, &rows_of(&values));
    }
}

pub fn gather<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let table = bench.f32(VOCAB * WIDTH, 1.0);
    let (ids, mut out) = (bench.integers(&IDS), bench.act_out(IDS.len() * WIDTH));
    backend.gather(out.view_mut(), table.view(), ids.view(), WIDTH);
    bench.check("rows", &out, &rows_of(&table.host));
}

/// A token that occurs three times gets the sum of three weighted rows, onto what is there.
pub fn scatter_add<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let (mut table, d) = (bench.f32(VOCAB * WIDTH, 1.0), bench.act(IDS.len() * WIDTH, 1.0));
    let (ids, weight) = (bench.integers(&IDS), bench.f32(IDS.len(), 1.0));
    backend.scatter_add(table.view_mut(), d.view(), ids.view(), weight.view(), WIDTH);
    let mut expected = table.host.clone();
    for (i, &id) in IDS.iter().enumerate() {
        for j in 0..WIDTH {
            expected[id as usize * WIDTH + j] += weight.host[i] * d.host[i * WIDTH + j];
        }
    }
    bench.check_f32("table", &table.buffer, &expected);
}
