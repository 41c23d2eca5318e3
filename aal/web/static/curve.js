// Draws accuracy against labels as SVG.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 800, HEIGHT = 300, LEFT = 48, RIGHT = 12, TOP = 12, BOTTOM = 28;

function add(root, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  root.append(made);
}

// points: [labels, accuracy from 0 to 1, its interval or null], in order; labels: how many there are.
export function drawCurve(root, points, labels) {
  root.replaceChildren();
  const most = Math.max(4, labels, ...points.map(([number]) => number));
  const x = (labels) => LEFT + (WIDTH - LEFT - RIGHT) * labels / most;
  const y = (accuracy) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - accuracy);
  for (let share = 0; share <= 1; share += 0.25) {
    add(root, "line", {x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share)});
    add(root, "text", {x: LEFT - 6, y: y(share) + 4, "text-anchor": "end"}, `${100 * share} %`);
  }
  for (let part = 0; part <= 4; part++) {
    const number = Math.round(most * part / 4);
    add(root, "text", {x: x(number), y: HEIGHT - 8, "text-anchor": part === 4 ? "end" : "middle"}, number);
  }
  add(root, "polyline", {points: points.map(([labels, accuracy]) => `${x(labels)},${y(accuracy)}`).join(" ")});
  for (const [labels, , interval] of points) {
    if (interval) add(root, "line", {class: "interval", x1: x(labels), x2: x(labels), y1: y(interval[0]), y2: y(interval[1])});
  }
  for (const [labels, accuracy] of points) add(root, "circle", {cx: x(labels), cy: y(accuracy), r: 3});
}
