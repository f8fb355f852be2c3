"""The script of figures in a page: tooltips, series that hide, and views."""

SCRIPT = """
// Points farther from the pointer than this, in units of the drawing, get no tooltip.
const REACH = 22;

function explore(view) {
  const plot = view.querySelector('.plot'), tip = view.querySelector('.tip');
  const svg = plot.querySelector('svg');
  const {texts, points} = JSON.parse(view.querySelector('script').textContent);
  const ring = document.createElementNS(svg.namespaceURI, 'circle');
  for (const [name, value] of Object.entries({r: 5, fill: 'none', stroke: '#c2571a'})) {
    ring.setAttribute(name, value);
  }
  ring.setAttribute('visibility', 'hidden');
  svg.append(ring);
  const hidden = new Set();
  let current = -1;

  function show(index) {
    current = index;
    tip.hidden = index < 0;
    ring.setAttribute('visibility', index < 0 ? 'hidden' : 'visible');
    if (index < 0) return;
    const [x, y, , , text, line] = points[index];
    ring.setAttribute('cx', x);
    ring.setAttribute('cy', y);
    tip.textContent = [texts[text], line].filter(Boolean).join('\\n');
    // The tooltip is on the side of the point that has more room.
    const box = svg.viewBox.baseVal, scale = svg.clientWidth / box.width;
    const right = x > box.width / 2, below = y < box.height / 2;
    tip.style.left = right ? 'auto' : `${(x + 9) * scale}px`;
    tip.style.right = right ? `${(box.width - x + 9) * scale}px` : 'auto';
    tip.style.top = below ? `${(y + 9) * scale}px` : 'auto';
    tip.style.bottom = below ? 'auto' : `${(box.height - y + 9) * scale}px`;
  }

  svg.addEventListener('pointermove', event => {
    const at = new DOMPoint(event.clientX, event.clientY)
      .matrixTransform(svg.getScreenCTM().inverse());
    let nearest = -1, least = REACH;
    points.forEach(([x, y, series], i) => {
      const distance = Math.hypot(x - at.x, y - at.y);
      if (distance < least && !hidden.has(series)) [nearest, least] = [i, distance];
    });
    show(nearest);
  });
  svg.addEventListener('pointerleave', () => show(-1));
  plot.addEventListener('blur', () => show(-1));

  // Left and right go along a series, up and down to the next one.
  plot.addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1}[event.key];
    if (event.key === 'Escape') show(-1);
    if (!step || !points.length) return;
    event.preventDefault();
    const start = current < 0 ? (step > 0 ? -1 : points.length) : current;
    const skips = event.key === 'ArrowDown' || event.key === 'ArrowUp';
    const mark = i => points[i] && points[i][3];
    let next = start + step;
    while (points[next] && (hidden.has(points[next][2]) || skips && mark(next) === mark(start))) {
      next += step;
    }
    if (points[next]) show(next);
  });

  for (const button of view.querySelectorAll('.legend button')) {
    const series = Number(button.dataset.series);
    button.addEventListener('click', () => {
      const hide = !hidden.has(series);
      hide ? hidden.add(series) : hidden.delete(series);
      button.setAttribute('aria-pressed', String(!hide));
      for (const part of svg.querySelectorAll(`[data-series="${series}"]`)) {
        part.style.display = hide ? 'none' : '';
      }
      show(-1);
    });
  }
}

for (const figure of document.querySelectorAll('figure.chart')) {
  const views = [...figure.querySelectorAll('.view')];
  views.forEach(explore);
  for (const input of figure.querySelectorAll('.switch input')) {
    input.addEventListener('change', () => {
      views.forEach((view, i) => { view.hidden = i !== Number(input.value); });
    });
  }
}
"""
