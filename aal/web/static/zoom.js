// Makes the image larger and moves it, by keys, wheel and pointer.

const STEP = 1.5, MOST = 32;

export class Zoom {
  constructor(stage) {
    this.stage = stage;
    this.reset();
    let from = null;
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.by(event.deltaY < 0 ? STEP : 1 / STEP);
    }, {passive: false});
    stage.addEventListener("dblclick", () => (this.scale > 1 ? this.reset() : this.by(STEP ** 3)));
    stage.addEventListener("pointerdown", (event) => {
      if (this.scale > 1) from = {x: event.clientX - this.x, y: event.clientY - this.y};
    });
    addEventListener("pointermove", (event) => {
      if (!from) return;
      [this.x, this.y] = [event.clientX - from.x, event.clientY - from.y];
      this.apply();
    });
    addEventListener("pointerup", () => (from = null));
  }

  reset() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.apply();
  }

  by(factor) {
    this.scale = Math.min(MOST, Math.max(1, this.scale * factor));
    if (this.scale === 1) [this.x, this.y] = [0, 0];
    this.apply();
  }

  apply() {
    this.stage.classList.toggle("zoomed", this.scale > 1);
    const image = this.stage.querySelector("img");
    if (image) image.style.transform = this.scale > 1 ? `translate(${this.x}px, ${this.y}px) scale(${this.scale})` : "";
  }
}
