// Sliders, buttons and thumbnails. Text of runs and classes is set as text, never as markup.

const TILES = 9; // images of the row under a slider
const NEAR = 300; // pixels beyond the window within which these rows are painted
const COLLAPSED = 0.01; // nats: dimensions below hold nothing, and wait in a list of their own

class Slider {
  constructor(state, rank, score, most) {
    this.state = state;
    this.rank = rank;
    const [low, high] = state.range(rank);
    const id = `dimension-${rank}`;
    this.input = element("input", { type: "range", id, min: low, max: high, step: "any" });
    this.output = element("output", { htmlFor: id });
    const name = state.several ? `Slider ${rank + 1}` : `z${state.runs[0].order[rank]}`;
    const head = element("div", { className: "head" }, element("label", { htmlFor: id, textContent: name }));
    if (!state.several) head.append(...this.score(score, most));
    head.append(this.output);
    this.strips = state.runs.map((run) => (rank < run.latentDim ? this.stripFor(run) : null));
    this.row = element("div", { className: "dimension" }, head, this.input, ...this.pictures());
    this.input.addEventListener("input", () => state.move(rank, this.input.valueAsNumber));
    this.input.addEventListener("keydown", (event) => this.onKey(event, (high - low) / 100));
  }

  // a slider with step "any" moves by a hundredth of its range in some browsers and by 1 in others
  onKey(event, step) {
    const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!way) return;
    event.preventDefault();
    const wanted = this.input.valueAsNumber + way * step;
    this.state.move(this.rank, Math.min(Number(this.input.max), Math.max(Number(this.input.min), wanted)));
  }

  score(score, most) {
    const { score: symbol } = this.state.runs[0];
    const meter = element("meter", { max: most, value: score, min: 0 });
    meter.setAttribute("aria-hidden", "true"); // the text beside it says the same
    return [element("span", { className: "score", textContent: `${symbol} ${score.toFixed(2)} nats` }), meter];
  }

  // The images along the slider: one row for each run, with its dimension in words if there are several.
  pictures() {
    if (!this.state.several) return this.strips;
    return this.state.runs.map((run, i) => {
      const dimension = run.order[this.rank];
      const what = dimension === undefined
        ? `not moved (z = ${run.latentDim})`
        : `z${dimension}, ${run.score} ${run.scores[dimension].toFixed(2)}`;
      const words = element("span", {}, element("b", { textContent: run.label }), ` ${what}`);
      return element("div", { className: "along" }, words, ...(this.strips[i] ? [this.strips[i]] : []));
    });
  }

  stripFor(run) {
    const strip = canvasFor(run.decoder.shape, TILES);
    strip.className = "strip";
    strip.setAttribute("aria-hidden", "true"); // a picture of what the slider does
    strip.addEventListener("click", (event) => {
      const box = strip.getBoundingClientRect();
      this.state.move(this.rank, this.valueOf(Math.floor(((event.clientX - box.left) / box.width) * TILES)));
    });
    return strip;
  }

  valueOf(tile) {
    const [low, high] = this.state.range(this.rank);
    return low + ((high - low) * tile) / (TILES - 1);
  }

  show() {
    const value = this.state.position(this.rank);
    const [low, high] = this.state.range(this.rank);
    this.input.min = Math.min(low, value); // a draw may lie beyond
    this.input.max = Math.max(high, value);
    this.input.value = value;
    const text = `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
    this.output.textContent = this.state.several ? `${text} σ` : text;
    this.input.setAttribute("aria-valuetext", this.output.textContent);
  }

  // The work of painting the images along the slider, one task for each; none if they are out of sight or painted.
  stripTasks(version) {
    const box = this.row.getBoundingClientRect();
    if (!this.row.offsetParent || box.bottom < -NEAR || box.top > innerHeight + NEAR) return [];
    return this.strips.flatMap((strip, i) => {
      if (!strip || strip.version === version) return [];
      const run = this.state.runs[i];
      return Array.from({ length: TILES }, (_, tile) => () => {
        const z = Float32Array.from(run.z);
        z[run.order[this.rank]] = this.state.zOf(run, this.rank, this.valueOf(tile));
        paintDecoded(strip, run, z, this.state.label, tile);
        if (tile === TILES - 1) strip.version = version;
      });
    });
  }
}

function slidersFor(state) {
  const scoreOf = (rank) => Math.max(...state.runs.map((run) => run.scores[run.order[rank]] ?? 0));
  const scores = Array.from({ length: state.numSliders }, (_, rank) => scoreOf(rank));
  const sliders = scores.map((score, rank) => new Slider(state, rank, score, Math.max(...scores, 1e-6)));
  const [open, closed] = [document.getElementById("sliders"), document.getElementById("collapsed")];
  sliders.forEach((slider, rank) => {
    const hidden = scores[rank] < COLLAPSED && rank > 0;
    (hidden ? closed.lastElementChild : open).append(slider.row);
  });
  const count = closed.lastElementChild.childElementCount;
  const said = count === 1 ? "1 collapsed dimension" : `${count} collapsed dimensions`;
  closed.hidden = !count;
  const where = state.several ? " in every run" : "";
  closed.firstElementChild.textContent = `${said} (below ${COLLAPSED} nats${where})`;
  return sliders;
}

// Buttons with the test images to start from.
function thumbnails(data, state, images) {
  const place = document.querySelector("#starts .thumbnails");
  images.forEach((image, i) => {
    const canvas = canvasFor(data.shape);
    paint(canvas, image, data.shape, 0, 255);
    const button = element("button", { type: "button", title: nameOf(data, i) }, canvas);
    button.setAttribute("aria-label", nameOf(data, i));
    button.addEventListener("click", () => state.startFrom(i, data.images.labels[i]));
    place.append(button);
  });
  document.getElementById("starts").open = true;
  return [...place.children];
}

function nameOf(data, i) {
  const name = data.classes[data.images.labels[i]];
  return `${name ? `${name}, ` : ""}test image ${data.images.numbers[i]}`;
}

// The name of a class as the dataset has it; empty if it is shown like that.
function wholeName(data, label) {
  const whole = data.wholeNames[label] ?? "";
  return whole === data.classes[label] ? "" : whole;
}

// Buttons that choose the class of conditional models; those of a single run show its image of each class.
function classButtons(data, state) {
  const place = document.getElementById("classes");
  if (!state.runs.some((run) => run.conditional)) return [];
  place.hidden = false;
  place.firstElementChild.textContent = state.several ? "Class" : "The same z for every class";
  return data.classes.map((name, label) => {
    const canvas = state.several ? [] : [canvasFor(data.shape)];
    const words = element("bdi", { textContent: name });
    const button = element("button", { type: "button", title: wholeName(data, label) }, ...canvas, words);
    button.addEventListener("click", () => state.choose(label));
    place.lastElementChild.append(button);
    return button;
  });
}

function toolbar(state) {
  const source = document.getElementById("source");
  const [first, ...others] = state.runs.map((run) => run.sources.map((one) => one.name));
  const common = first.filter((name) => others.every((names) => names.includes(name)));
  for (const name of common) {
    const own = state.runs[0].sources.find((one) => one.name === name);
    const text = state.several ? `each run's ${name}` : own.words;
    source.append(element("option", { value: name, textContent: text }));
  }
  document.getElementById("reset").addEventListener("click", () => state.reset());
  document.getElementById("draw").addEventListener("click", () => {
    state.draw(source.value);
    state.said = `z drawn from ${source.selectedOptions[0].textContent}`;
    state.changed();
  });
}
