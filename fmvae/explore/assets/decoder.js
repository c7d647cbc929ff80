// Runs a decoder in the page: a list of operations on flat arrays of numbers, one image at a time.
// fmvae/explore/program.py has the same operations in torch; the tests compare both with the model itself.

const UNARY = {
  relu: (x) => (x > 0 ? x : 0),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  silu: (x) => x / (1 + Math.exp(-x)),
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  abs: Math.abs,
  neg: (x) => -x,
  reciprocal: (x) => 1 / x,
  square: (x) => x * x,
  sin: Math.sin,
  cos: Math.cos,
  not: (x) => 1 - x,
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
  leaky_relu: (x, s) => (x > 0 ? x : s.slope * x),
  elu: (x, s) => (x > 0 ? s.scale * x : s.alpha * s.scale * Math.expm1(s.inner * x)),
  softplus: (x, s) => (s.beta * x > s.threshold ? x : Math.log1p(Math.exp(s.beta * x)) / s.beta),
};

const BINARY = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  pow: Math.pow,
  max: Math.max,
  min: Math.min,
  lt: (a, b) => Number(a < b),
  le: (a, b) => Number(a <= b),
  gt: (a, b) => Number(a > b),
  ge: (a, b) => Number(a >= b),
  eq: (a, b) => Number(a === b),
  ne: (a, b) => Number(a !== b),
  and: (a, b) => a * b,
  or: Math.max,
};

// Abramowitz & Stegun 7.1.26: an error below 1.5e-7
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const terms = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - terms * Math.exp(-x * x));
}

// Each step fills `out` from its inputs; `s` holds numbers and weights.
const STEPS = {
  dense(out, [x], s) {
    const inputs = x.length / s.rows;
    const outputs = out.length / s.rows;
    for (let row = 0; row < s.rows; row++) {
      for (let o = 0; o < outputs; o++) {
        let sum = s.bias ? s.bias[o] : 0;
        const at = o * inputs;
        for (let i = 0; i < inputs; i++) sum += s.weight[at + i] * x[row * inputs + i];
        out[row * outputs + o] = sum;
      }
    }
  },
  convolution(out, [x], s) {
    const size = s.out[1] * s.out[2];
    for (let c = 0; c < s.out[0]; c++) out.fill(s.bias ? s.bias[c] : 0, c * size, (c + 1) * size);
    // a transposed convolution spreads each small pixel over large ones, a convolution gathers: same loops
    const [small, large] = s.transposed ? [s.image, s.out] : [s.out, s.image];
    forEachTap(s, small, large, (weight, from, to, tap) => {
      if (s.transposed) spread(out, x, weight, small, large, from, to, tap);
      else collect(out, x, weight, small, large, from, to, tap);
    });
  },
  affine(out, [x], s) {
    const size = x.length / s.scale.length;
    for (let i = 0; i < x.length; i++) {
      const channel = Math.floor(i / size);
      out[i] = x[i] * s.scale[channel] + s.shift[channel];
    }
  },
  normalize(out, [x], s) {
    const size = x.length / s.groups;
    for (let start = 0; start < x.length; start += size) {
      let mean = 0;
      for (let i = start; i < start + size; i++) mean += x[i];
      mean /= size;
      let variance = 0;
      for (let i = start; i < start + size; i++) variance += (x[i] - mean) ** 2;
      const factor = 1 / Math.sqrt(variance / size + s.eps);
      for (let i = start; i < start + size; i++) out[i] = (x[i] - mean) * factor;
    }
  },
  gather(out, [x], s) {
    for (let i = 0; i < out.length; i++) out[i] = s.index[i] ? x[s.index[i] - 1] : 0;
  },
  slice(out, [x], s) {
    out.set(x.subarray(s.start, s.start + s.size));
  },
  concat(out, parts) {
    let at = 0;
    for (const part of parts) {
      out.set(part, at);
      at += part.length;
    }
  },
  unary(out, [x], s) {
    const apply = UNARY[s.function];
    for (let i = 0; i < x.length; i++) out[i] = apply(x[i], s);
  },
  binary(out, [a, b], s) {
    const apply = BINARY[s.function];
    const scale = s.scale ?? 1;
    for (let i = 0; i < out.length; i++) out[i] = apply(a[i], scale * b[i]);
  },
  scalar(out, [x], s) {
    const apply = BINARY[s.function];
    const number = Math.fround(s.number);
    if (s.swapped) for (let i = 0; i < x.length; i++) out[i] = apply(number, x[i]);
    else for (let i = 0; i < x.length; i++) out[i] = apply(x[i], number);
  },
  where(out, [mask, a, b]) {
    for (let i = 0; i < out.length; i++) out[i] = mask[i] ? a[i] : b[i];
  },
};

// Calls visit(weight, offset of the small channel, offset of the large channel, tap) for each weight of a kernel.
// In memory, a kernel is (small channels, large channels of the group, rows, columns), transposed or not.
function forEachTap(s, small, large, visit) {
  const smallPerGroup = small[0] / s.groups;
  const largePerGroup = large[0] / s.groups;
  const [rows, columns] = s.kernel;
  let at = 0;
  for (let c = 0; c < small[0]; c++) {
    const first = Math.floor(c / smallPerGroup) * largePerGroup;
    for (let d = first; d < first + largePerGroup; d++) {
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++, at++) {
          const tap = {
            top: i * s.dilation[0] - s.padding[0],
            left: j * s.dilation[1] - s.padding[1],
            down: s.stride[0],
            right: s.stride[1],
          };
          visit(s.weight[at], c * small[1] * small[2], d * large[1] * large[2], tap);
        }
      }
    }
  }
}

// The small columns whose large column, x * right + left, lies within the image: [first, beyond).
function within(size, step, start, count) {
  const first = Math.max(0, Math.ceil(-start / step));
  return [first, Math.min(count, Math.floor((size - 1 - start) / step) + 1)];
}

function spread(out, x, weight, small, large, from, to, tap) {
  const [first, beyond] = within(large[2], tap.right, tap.left, small[2]);
  const [top, bottom] = within(large[1], tap.down, tap.top, small[1]);
  for (let y = top; y < bottom; y++) {
    const source = from + y * small[2];
    const target = to + (y * tap.down + tap.top) * large[2] + tap.left;
    for (let i = first; i < beyond; i++) out[target + i * tap.right] += weight * x[source + i];
  }
}

function collect(out, x, weight, small, large, from, to, tap) {
  const [first, beyond] = within(large[2], tap.right, tap.left, small[2]);
  const [top, bottom] = within(large[1], tap.down, tap.top, small[1]);
  for (let y = top; y < bottom; y++) {
    const target = from + y * small[2];
    const source = to + (y * tap.down + tap.top) * large[2] + tap.left;
    for (let i = first; i < beyond; i++) out[target + i] += weight * x[source + i * tap.right];
  }
}

// All numbers of the page: one run of bytes, in base64, of which the data name places.
class Store {
  constructor(base64) {
    const text = atob(base64);
    this.bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) this.bytes[i] = text.charCodeAt(i);
  }

  read({ type, at, length }) {
    const kinds = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array, f16: Uint16Array };
    const found = new kinds[type](this.bytes.buffer, at, length);
    return type === "f16" ? Float32Array.from(found, half) : found;
  }
}

// The number that 16 bits stand for (IEEE 754 binary16), as Float16Array is too new for many browsers.
function half(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 32768 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

class Decoder {
  constructor(program, store) {
    this.shape = program.shape;
    this.latentDim = program.latentDim;
    this.output = program.output;
    this.constants = program.constants.map((constant) => rowsOf(store.read(constant), constant.rows));
    this.slots = [null, ...program.operations.map((operation) => new Float32Array(operation.size))];
    this.operations = program.operations;
    this.settings = new Map(); // by class: a program's weights may depend on it
  }

  // The image (C, H, W) of z, values in [0, 1]. The array is used again by the next call.
  decode(z, label = 0) {
    this.slots[0] = z;
    const read = ([number, constant]) => (constant ? this.constant(number, label) : this.slots[number]);
    const settings = this.settingsOf(label);
    this.operations.forEach((operation, i) => {
      STEPS[operation.name](this.slots[i + 1], operation.inputs.map(read), settings[i]);
    });
    return read(this.output);
  }

  constant(number, label) {
    const rows = this.constants[number];
    return rows[rows.length > 1 ? label : 0];
  }

  settingsOf(label) {
    if (!this.settings.has(label)) {
      const resolved = (value) => (value?.constant === undefined ? value : this.constant(value.constant, label));
      const of = ({ settings }) => Object.fromEntries(Object.entries(settings).map(([k, v]) => [k, resolved(v)]));
      this.settings.set(label, this.operations.map(of));
    }
    return this.settings.get(label);
  }
}

function rowsOf(values, rows) {
  const length = values.length / rows;
  return Array.from({ length: rows }, (_, row) => values.subarray(row * length, (row + 1) * length));
}
