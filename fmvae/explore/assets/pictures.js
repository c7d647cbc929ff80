// Canvases: one image or a row of images, at their own size; CSS enlarges them.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function canvasFor(shape, number = 1) {
  return element("canvas", { width: shape[2] * number, height: shape[1] });
}

// Paints an image (C, H, W), grey or RGB, at the given place of a row; values are in [0, most].
function paint(canvas, image, shape, place = 0, most = 1) {
  const [channels, height, width] = shape;
  const pixels = new ImageData(width, height);
  const size = width * height;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = (255 / most) * image[channels === 3 ? c * size + i : i]; // rounded, and clipped
    }
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, place * width, 0);
}

function paintDecoded(canvas, run, z, label, place = 0) {
  paint(canvas, run.decoder.decode(z, label), run.decoder.shape, place);
}

// Does work that can wait in pieces of a few milliseconds, between frames. New work replaces the old.
class Later {
  constructor(piece = 8) {
    this.piece = piece;
    this.tasks = [];
    this.asked = false;
  }

  replace(tasks) {
    this.tasks = tasks;
    this.ask();
  }

  ask() {
    if (this.asked || !this.tasks.length) return;
    this.asked = true;
    setTimeout(() => this.work(), 0);
  }

  work() {
    this.asked = false;
    const end = performance.now() + this.piece;
    while (this.tasks.length && performance.now() < end) this.tasks.shift()();
    this.ask();
  }
}
