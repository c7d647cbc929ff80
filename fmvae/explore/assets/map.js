// The latent plane of a model with z = 2: posterior means of test images, and the place that is decoded.

const STEP = 0.05; // of an arrow key, in units of z

class LatentMap {
  constructor(place, data, run, state, store) {
    Object.assign(this, { data, run, state });
    this.points = store.read(run.map.points);
    this.labels = store.read(run.map.labels);
    this.bounds = [0, 1].map((axis) => this.boundsOf(axis));
    this.dots = element("canvas", { width: 720, height: 720 });
    this.cross = element("canvas", { width: 720, height: 720 });
    this.cross.style.background = "transparent";
    const numbers = [0, 1].flatMap((axis) => this.ticks(axis).map((value) => this.number(axis, value)));
    this.plane = element("div", { className: "plane", tabIndex: 0 }, this.dots, this.cross, ...numbers);
    this.plane.setAttribute("role", "application");
    this.plane.setAttribute("aria-label", "Map of the latent plane. Arrow keys move the point that is decoded.");
    place.append(this.plane, this.legend(), element("p", { className: "hint", textContent: HINT }));
    place.hidden = false;
    this.held = null; // z while the pointer only passes over
    this.listen();
    this.drawDots();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawDots());
  }

  boundsOf(axis) {
    const { mean, std } = this.run;
    let [low, high] = [mean[axis] - 3 * std[axis], mean[axis] + 3 * std[axis]];
    for (let i = axis; i < this.points.length; i += 2) {
      low = Math.min(low, this.points[i]);
      high = Math.max(high, this.points[i]);
    }
    const margin = 0.03 * (high - low);
    return [low - margin, high + margin];
  }

  // Round values of an axis, four to nine of them.
  ticks(axis) {
    const [low, high] = this.bounds[axis];
    const power = 10 ** Math.floor(Math.log10((high - low) / 4));
    const step = power * [5, 2, 1].find((factor) => factor * power <= (high - low) / 4);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const first = Math.ceil(low / step);
    const count = Math.floor(high / step) - first + 1;
    return Array.from({ length: count }, (_, i) => ((first + i) * step).toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1"));
  }

  // The text of a tick at the edge of the plane; none in the corner, where those of both axes would meet.
  number(axis, value) {
    const text = element("span", { className: axis ? "tick left" : "tick bottom", textContent: value.replace("-", "−") });
    const share = (value - this.bounds[axis][0]) / (this.bounds[axis][1] - this.bounds[axis][0]);
    text.style[axis ? "bottom" : "left"] = `${100 * share}%`;
    text.hidden = share < 0.06 || share > 0.96;
    return text;
  }

  legend() {
    const names = this.data.classes.length ? this.data.classes : ["posterior means of test images"];
    const entries = names.map((name, label) => {
      const swatch = element("i");
      swatch.style.background = this.data.colours[label % this.data.colours.length];
      return element("li", { title: wholeName(this.data, label) }, swatch, element("bdi", { textContent: name }));
    });
    return element("ul", { className: "legend" }, ...entries);
  }

  toPixels(z) {
    const share = [0, 1].map((axis) => (z[axis] - this.bounds[axis][0]) / (this.bounds[axis][1] - this.bounds[axis][0]));
    return [share[0] * this.dots.width, (1 - share[1]) * this.dots.height];
  }

  at(event) {
    const box = this.plane.getBoundingClientRect();
    const share = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    return share.map((one, axis) => this.bounds[axis][0] + one * (this.bounds[axis][1] - this.bounds[axis][0]));
  }

  listen() {
    this.plane.addEventListener("pointermove", (event) => {
      this.held ??= { z: Float32Array.from(this.run.z), image: this.state.image };
      this.state.start(() => this.at(event));
    });
    this.plane.addEventListener("pointerdown", (event) => {
      this.state.start(() => this.at(event));
      this.held = { z: Float32Array.from(this.run.z), image: null };
    });
    this.plane.addEventListener("pointerleave", () => {
      const { held } = this;
      this.held = null;
      if (held) this.state.start(() => held.z, held.image);
    });
    this.plane.addEventListener("keydown", (event) => {
      const step = STEP * (event.shiftKey ? 5 : 1);
      const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [];
      if (x === undefined) return;
      event.preventDefault(); // the page would scroll
      this.held = null;
      this.state.start(() => [this.run.z[0] + step * x, this.run.z[1] + step * y]);
    });
  }

  drawDots() {
    const context = this.dots.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    context.clearRect(0, 0, this.dots.width, this.dots.height);
    this.drawAxes(context, style);
    context.globalAlpha = 0.65;
    for (let i = 0; i < this.labels.length; i++) {
      context.fillStyle = this.data.colours[this.labels[i] % this.data.colours.length];
      const [x, y] = this.toPixels(this.points.subarray(2 * i, 2 * i + 2));
      context.beginPath();
      context.arc(x, y, 4, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  drawAxes(context, style) {
    const [x, y] = this.toPixels([0, 0]);
    context.strokeStyle = style.getPropertyValue("--line");
    context.fillStyle = style.getPropertyValue("--quiet");
    context.font = "22px system-ui, sans-serif";
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, this.dots.height);
    context.moveTo(0, y);
    context.lineTo(this.dots.width, y);
    context.stroke();
    context.fillText("z1", x + 8, 24);
    context.fillText("z0", this.dots.width - 34, y - 8);
  }

  // Marks the place of z; called for each frame.
  show() {
    const context = this.cross.getContext("2d");
    const [x, y] = this.toPixels(this.run.z);
    context.clearRect(0, 0, this.cross.width, this.cross.height);
    for (const [colour, width] of [["#ffffff", 9], ["#000000", 4]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, 13, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}

const HINT = "Posterior means of test images. Move the pointer to decode the place under it, click to stay there; "
  + "or use the arrow keys, with Shift for larger steps.";
