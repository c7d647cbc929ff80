// Puts the page together: what is decoded at once, what can wait, and the words around it.

const WAIT = 60; // ms without a change before the pictures that can wait are painted

class Explorer {
  constructor(data, store) {
    this.data = data;
    this.images = rowsOf(store.read(data.images.pixels), data.images.labels.length);
    this.runs = data.runs.map((entry) => new Run(entry, store, this.images.length));
    this.state = new State(this.runs, data.span);
    document.querySelector("main").classList.toggle("several", this.state.several);
    this.describe();
    this.figures = new Figures(data, this.state, this.images);
    if (this.runs[0].map) this.map = new LatentMap(document.getElementById("map"), data, this.runs[0], this.state, store);
    this.classes = classButtons(data, this.state);
    this.thumbnails = thumbnails(data, this.state, this.images);
    this.sliders = slidersFor(this.state);
    toolbar(this.state);
    this.later = new Later();
    this.state.changed = () => this.ask();
    this.version = 0; // of what is shown, to know which pictures are old
    for (const id of ["collapsed", "starts"]) {
      document.getElementById(id).addEventListener("toggle", () => this.wait());
    }
    addEventListener("scroll", () => this.wait(), { passive: true });
    addEventListener("resize", () => this.wait());
    this.show();
  }

  // Several changes between two frames are shown once.
  ask() {
    this.frame ??= requestAnimationFrame(() => this.show());
  }

  show() {
    this.frame = null;
    this.figures.show();
    this.map?.show();
    for (const slider of this.sliders) slider.show();
    this.classes.forEach((button, label) => button.setAttribute("aria-pressed", label === this.state.label));
    this.thumbnails.forEach((button, i) => button.setAttribute("aria-pressed", i === this.state.image));
    document.getElementById("status").textContent = this.words();
    this.state.said = null;
    this.version += 1;
    this.wait();
  }

  wait() {
    clearTimeout(this.timer);
    this.later.replace([]);
    this.timer = setTimeout(() => this.later.replace(this.whatCanWait()), WAIT);
  }

  whatCanWait() {
    const { version } = this;
    const strips = this.sliders.flatMap((slider) => slider.stripTasks(version));
    if (this.painted === version) return strips;
    const tasks = this.figures.laterTasks();
    if (!this.state.several) {
      this.classes.forEach((button, label) => {
        tasks.push(() => paintDecoded(button.firstElementChild, this.runs[0], this.runs[0].z, label));
      });
    }
    return [...tasks, () => (this.painted = version), ...strips];
  }

  words() {
    const { image, said } = this.state;
    if (said) return said;
    return image === null ? "" : `Start: the posterior mean of ${nameOf(this.data, image)}`;
  }

  describe() {
    const { several } = this.state;
    const [run] = this.runs;
    const text = (id, content) => (document.getElementById(id).textContent = content);
    const model = run.model.replaceAll(" = ", "\u00a0=\u00a0"); // no line ends after "β ="
    text("title", several ? `${this.runs.length} runs, moved together` : model);
    text("subtitle", several ? this.runs.map((one) => one.name).join(" · ") : run.name);
    if (!several) document.getElementById("facts").append(...factsOf(run));
    text("units", several ? this.unitsOfSeveral() : unitsOfOne(run, this.data.span));
    const lines = this.data.leftOut.map(([name, reason]) => `Left out: ${name} (${reason}).`);
    const notes = [...lines, ...notesOn(this.runs)];
    document.getElementById("notes").append(...notes.map((line) => element("p", { textContent: line })));
  }

  unitsOfSeveral() {
    const sizes = new Set(this.runs.map((run) => run.latentDim));
    const ignored = sizes.size > 1 ? " A slider beyond a run's number of dimensions does not move it." : "";
    return `Slider 1 moves the dimension with the highest ${this.runs[0].score} of each run, slider 2 the second, and so `
      + "on. The unit σ is the standard deviation of the test images' aggregate posterior in that dimension, counted "
      + `from where the run started. Dimensions of different runs have nothing else in common.${ignored}`;
  }
}

function unitsOfOne(run, span) {
  const what = run.score === "KL" ? "their KL from the prior" : "an upper bound of their mutual information with the image";
  const order = run.latentDim > 1 ? `The dimensions of z in the order of ${what}. ` : "";
  return `${order}Sliders reach ${span} standard deviations of the test images' aggregate posterior from its mean; `
    + "below each, the images along it.";
}

function notesOn(runs) {
  const notes = ["Images are decoder means, computed in this page; it asks for nothing from the network."];
  if (runs.some((run) => run.sources.some((source) => source.z))) {
    notes.push("Draws from N(0, 1) are made here. Of other densities the page holds draws that were made when it was "
      + "written, and shows one of them at a time.");
  }
  return notes;
}

function factsOf(run) {
  return run.facts.map(([name, value]) => element("li", {}, `${name} `, element("b", { textContent: value })));
}

// The decoded image of each run, and beside it the test image that they started from.
class Figures {
  constructor(data, state, images) {
    Object.assign(this, { data, state, images });
    const place = document.getElementById("figures");
    this.decoded = state.runs.map((run) => this.figure(place, state.several ? run.label : "Decoded", run));
    const beside = state.several ? document.getElementById("origin") : place.appendChild(element("div", { id: "beside" }));
    this.original = this.figure(beside, "Test image", null, "small");
    this.rebuilt = this.figure(beside, "Reconstruction", null, "small");
    this.origin = document.getElementById("origin");
  }

  figure(place, title, run, className = "") {
    const canvas = canvasFor(this.data.shape);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", run ? `${title}: the decoded image` : title);
    const caption = element("figcaption", {}, element("strong", { textContent: title }));
    const figure = element("figure", { className }, canvas, caption);
    if (run && this.state.several) {
      caption.append(element("ul", { className: "facts" }, ...factsOf(run)));
      if (run.conditional) figure.append((run.every = this.everyClass(run)));
    }
    place.prepend(figure);
    if (run) place.append(figure); // the text beside a test image follows it
    return { figure, canvas };
  }

  everyClass(run) {
    const canvas = canvasFor(this.data.shape, this.data.classes.length);
    canvas.className = "every";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${run.label}: the same z for every class`);
    return canvas;
  }

  show() {
    const { runs, label, image, several } = this.state;
    runs.forEach((run, i) => paintDecoded(this.decoded[i].canvas, run, run.z, label));
    this.original.figure.hidden = image === null;
    this.rebuilt.figure.hidden = image === null || several;
    if (image === null) return;
    paint(this.original.canvas, this.images[image], this.data.shape, 0, 255);
    const own = this.data.images.labels[image];
    if (!several) paintDecoded(this.rebuilt.canvas, runs[0], runs[0].means[image], own);
  }

  laterTasks() {
    const runs = this.state.runs.filter((run) => run.every);
    return runs.flatMap((run) => this.data.classes.map((_, label) => () => {
      paintDecoded(run.every, run, run.z, label, label);
    }));
  }
}

// for the console and for tests: explorer.runs[0].decoder.decode(z, label)
globalThis.explorer = new Explorer(
  JSON.parse(document.getElementById("data").textContent),
  new Store(document.getElementById("blob").textContent),
);
