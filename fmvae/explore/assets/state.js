// Where each run is in its latent space, and how sliders, draws and test images move it.

// A run: its decoder, and the dimensions in the order of their scores (KL).
class Run {
  constructor(entry, store, numImages) {
    Object.assign(this, entry);
    this.latentDim = entry.program.latentDim;
    this.decoder = new Decoder(entry.program, store);
    this.means = rowsOf(store.read(entry.mu), numImages);
    this.sources = entry.draws.map((source) => ({ ...source, z: source.z && rowsOf(store.read(source.z), source.rows) }));
    this.base = Float32Array.from(entry.mean);
    this.z = Float32Array.from(entry.mean);
  }

  startAt(z) {
    this.base.set(z);
    this.z.set(z);
  }

  // z of a draw: `turn` in [0, 1) chooses among the draws made in Python; `noise` is the page's own, by rank.
  drawn(name, label, turn, noise) {
    const source = this.sources.find((one) => one.name === name);
    if (!source.z) {
      const z = new Float32Array(this.latentDim);
      this.order.forEach((dimension, rank) => (z[dimension] = noise[rank]));
      return z;
    }
    const rows = source.z[source.rows > 1 ? label : 0];
    const number = Math.floor((turn * rows.length) / this.latentDim);
    return rows.subarray(number * this.latentDim, (number + 1) * this.latentDim);
  }
}

// One run is moved in units of z; several in units of each run's own spread, from where each of them started.
class State {
  constructor(runs, span) {
    this.runs = runs;
    this.span = span;
    this.several = runs.length > 1;
    this.numSliders = Math.max(...runs.map((run) => run.latentDim));
    this.offsets = new Float32Array(this.numSliders);
    this.label = 0;
    this.image = null; // the test image that the runs started from
    this.changed = () => {};
  }

  range(rank) {
    if (this.several) return [-this.span, this.span];
    const [run] = this.runs;
    const dimension = run.order[rank];
    const reach = this.span * run.std[dimension];
    return [run.mean[dimension] - reach, run.mean[dimension] + reach];
  }

  position(rank) {
    return this.several ? this.offsets[rank] : this.runs[0].z[this.runs[0].order[rank]];
  }

  move(rank, value) {
    this.offsets[rank] = value;
    for (const run of this.runs) {
      if (rank >= run.latentDim) continue; // this run has no such dimension
      run.z[run.order[rank]] = this.zOf(run, rank, value);
    }
    this.changed();
  }

  // What a slider's value means in a run's dimension.
  zOf(run, rank, value) {
    const dimension = run.order[rank];
    return this.several ? run.base[dimension] + value * run.std[dimension] : value;
  }

  start(zOf, image = null) {
    this.offsets.fill(0);
    this.image = image;
    for (const run of this.runs) run.startAt(zOf(run));
    this.changed();
  }

  reset() {
    this.start((run) => run.mean);
  }

  startFrom(image, label) {
    if (this.runs.some((run) => run.conditional)) this.label = label;
    this.start((run) => run.means[image], image);
  }

  draw(source) {
    const noise = Float32Array.from({ length: this.numSliders }, normal);
    const turn = Math.random();
    this.start((run) => run.drawn(source, this.label, turn, noise));
  }

  choose(label) {
    this.label = label;
    this.changed();
  }
}

// A number from N(0, 1) (Box & Muller 1958).
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}
