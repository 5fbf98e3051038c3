use deepguard::ops::Backend;
use deepguard::ops::philox::philox;
use safetensors::Dtype;

use super::bench::Bench;

const IDS: [u32; 6] = [4, 0, 4, 10, 1, 4];
const VOCAB: usize = 11;
const WIDTH: usize = 19;

fn rows_of(table: &[f64], width: usize) -> Vec<f64> {
    IDS.iter().flat_map(|&id| table[id as usize * width..][..width].to_vec()).collect()
}

pub fn embed<B: Backend>(backend: &B) {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let mut bench = Bench::new(backend);
        let (table, values) = bench.weight(&[VOCAB], WIDTH, dtype);
        let (ids, mut out) = (bench.integers(&IDS), bench.act_out(IDS.len() * WIDTH));
        backend.embed(out.view_mut(), &table, ids.view());
        bench.check("rows", &out, &rows_of(&values, WIDTH));
    }
}

pub fn gather<B: Backend>(backend: &B) {
    for width in [WIDTH, 24] {
        let mut bench = Bench::new(backend);
        let table = bench.f32(VOCAB * width, 1.0);
        let (ids, mut out) = (bench.integers(&IDS), bench.act_out(IDS.len() * width));
        backend.gather(out.view_mut(), table.view(), ids.view(), width);
        bench.check("rows", &out, &rows_of(&table.host, width));
    }
}

/// A token that occurs several times gets the sum of its weighted rows, onto what is there.
pub fn scatter_add<B: Backend>(backend: &B) {
    // Some tokens occur in many rows, more than are looked at together.
    let many: Vec<u32> = (0..331).map(|i| if i % 3 == 0 { i % 7 } else { 5 }).collect();
    for (ids, width) in [(IDS.as_slice(), WIDTH), (&IDS, 24), (&many, 132), (&many, 35)] {
        let mut bench = Bench::new(backend);
        let (mut table, d) = (bench.f32(VOCAB * width, 1.0), bench.act(ids.len() * width, 1.0));
        let (id_buffer, weight) = (bench.integers(ids), bench.f32(ids.len(), 1.0));
        backend.scatter_add(table.view_mut(), d.view(), id_buffer.view(), weight.view(), width);
        let mut expected = table.host.clone();
        for (i, &id) in ids.iter().enumerate() {
            for j in 0..width {
                expected[id as usize * width + j] += weight.host[i] * d.host[i * width + j];
            }
        }
        bench.check_f32("table", &table.buffer, &expected);
    }
}

/// Many rows, whose sums in f32 tell their order: with ids of one, two and three bytes, and in tables whose
/// size is a power of two.
pub fn scatter_add_in_order<B: Backend>(backend: &B) {
    const ROWS: usize = 2500;
    for vocab in [1, 200, 256, 65_536, 70_001] {
        let bench = Bench::new(backend);
        // Ids that are frequent, and others from the whole table.
        let id = |i: u32| philox(3, [i, 0, 0, 0])[0] % if i.is_multiple_of(3) { vocab } else { 7.min(vocab) };
        let ids: Vec<u32> = (0..ROWS as u32).map(id).collect();
        // What is large swallows the ones behind it, until the next takes it away.
        let weights: Vec<f64> =
            (0..ROWS).map(|i| [134_217_728.0, 1.0, -134_217_728.0, 1.0][i * 7 % 4]).collect();
        let mut expected = vec![0.0f32; vocab as usize];
        for (&id, &weight) in ids.iter().zip(&weights) {
            expected[id as usize] += weight as f32;
        }
        let (ids, weights) = (bench.integers(&ids), bench.f32_of(&weights));
        let (d, mut table) = (bench.act_of(&[1.0; ROWS]), bench.f32_of(&vec![0.0; vocab as usize]));
        backend.scatter_add(table.view_mut(), d.view(), ids.view(), weights.view(), 1);
        bench.finish();
        assert_eq!(backend.to_host(table.buffer.view()), expected, "{vocab} rows of the table");
    }
}
