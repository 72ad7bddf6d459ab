// The player of the page: true | drawn | pose | error, frame by frame. Its data lie in the page as JSON.
"use strict";

(() => {
  const content = JSON.parse(document.getElementById("player-data").textContent);
  const root = document.getElementById("player");
  if (!root || !content.runs.length) return;

  const FRAMES_PER_SECOND = 25;
  const ERROR_GAIN = 4; // the error picture shows four times the difference
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const state = { run: 0, other: -1, clip: 0, drawn: "drawn", frame: 0, playing: false, speed: 1, zoom: 0 };
  const pictures = new Map(); // key of a sprite -> decoded picture

  const run = () => content.runs[state.run];
  const clip = () => run().clips[Math.min(state.clip, run().clips.length - 1)];
  const trueSprite = (shown) => shown.layers.true.sprite;

  // Clips of other runs with the same true frames.
  const partners = () =>
    content.runs.flatMap((other, index) =>
      index === state.run ? [] : other.clips.filter((its) => trueSprite(its) === trueSprite(clip())).map((its) => ({ index, clip: its })),
    );
  const partner = () => partners().find((found) => found.index === state.other);

  // The pixels of all frames of a layer, RGBA. Pixel p at time t: row p % rows, column floor(p / rows) * frames + t.
  function picture(key) {
    if (!pictures.has(key)) {
      const image = new Image();
      image.src = content.sprites[key];
      pictures.set(key, image.decode().then(() => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      }));
    }
    return pictures.get(key);
  }

  function frameOf(layer, shown, time) {
    const frame = new ImageData(shown.width, shown.height);
    for (let pixel = 0; pixel < shown.width * shown.height; pixel += 1) {
      const column = Math.floor(pixel / shown.rows) * shown.frames + time;
      const from = 4 * ((pixel % shown.rows) * layer.width + column);
      frame.data.set(layer.data.subarray(from, from + 4), 4 * pixel);
    }
    return frame;
  }

  function panels() {
    const shown = clip();
    const found = [{ label: "true", sprite: trueSprite(shown) }];
    const drawn = shown.layers[state.drawn] ?? shown.layers.drawn;
    found.push({ label: state.drawn === "drawn" ? `drawn: ${run().name}` : `${state.drawn}: ${run().name}`, sprite: drawn.sprite });
    const beside = partner();
    if (beside) found.push({ label: `drawn: ${content.runs[beside.index].name}`, sprite: beside.clip.layers.drawn.sprite });
    if (shown.layers.pose) found.push({ label: "pose", sprite: shown.layers.pose.sprite });
    found.push({ label: `error of ${run().name}, ${ERROR_GAIN} times`, sprite: null, of: drawn.sprite });
    return found;
  }

  function fill(select, options, chosen) {
    select.replaceChildren(
      ...options.map(([value, text]) => {
        const option = document.createElement("option");
        option.value = value;
        option.textContent = text;
        option.selected = String(value) === String(chosen);
        return option;
      }),
    );
    select.disabled = options.length < 2;
  }

  // Builds what depends on the chosen run, clip and sample.
  async function rebuild() {
    const shown = clip();
    if (!shown.layers[state.drawn]) state.drawn = "drawn";
    if (!partner()) state.other = -1;
    state.frame = Math.min(state.frame, shown.frames - 1);
    fill(part("run"), content.runs.map((each, index) => [index, `${each.name} (${each.score.toFixed(2)} dB)`]), state.run);
    fill(part("other"), [[-1, "no other run"], ...partners().map((found) => [found.index, content.runs[found.index].name])], state.other);
    fill(part("clip"), run().clips.map((each, index) => [index, each.name]), state.clip);
    const predictions = Object.keys(shown.layers).filter((name) => shown.layers[name].psnr);
    fill(part("sample"), predictions.map((name) => [name, name]), state.drawn);
    part("scrubber").max = shown.frames - 1;
    const screen = part("screen");
    screen.replaceChildren(
      ...panels().map((panel) => {
        const figure = document.createElement("figure");
        const canvas = document.createElement("canvas");
        canvas.width = shown.width;
        canvas.height = shown.height;
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", panel.label);
        const caption = document.createElement("figcaption");
        caption.textContent = panel.label;
        figure.append(canvas, caption);
        return figure;
      }),
    );
    await Promise.all(panels().flatMap((panel) => (panel.sprite ? [picture(panel.sprite)] : [])));
    resize();
    draw();
  }

  function resize() {
    const shown = clip();
    const canvases = [...root.querySelectorAll("canvas[role=img]")];
    const width = part("screen").clientWidth;
    const inRow = width < 600 ? Math.min(2, canvases.length) : canvases.length;
    const fitting = Math.min(16, (width - 8 * (inRow - 1)) / (inRow * shown.width));
    const zoom = state.zoom || (fitting > 4 ? Math.floor(fitting * 4) / 4 : fitting);
    for (const canvas of canvases) {
      canvas.style.width = `${shown.width * zoom}px`;
      canvas.style.height = `${shown.height * zoom}px`;
      canvas.parentElement.style.width = canvas.style.width;
    }
  }

  async function draw() {
    const shown = clip();
    const frame = state.frame;
    const canvases = [...root.querySelectorAll("canvas[role=img]")];
    const truth = frameOf(await picture(trueSprite(shown)), shown, frame);
    for (const [index, panel] of panels().entries()) {
      const drawn = frameOf(await picture(panel.sprite ?? panel.of), shown, frame);
      if (frame !== state.frame || shown !== clip() || !canvases[index]) return; // another frame is asked for by now
      if (!panel.sprite) {
        drawn.data.forEach((value, n) => {
          if (n % 4 !== 3) drawn.data[n] = ERROR_GAIN * Math.abs(truth.data[n] - value);
        });
      }
      canvases[index].getContext("2d").putImageData(drawn, 0, 0);
    }
    part("scrubber").value = state.frame;
    part("scrubber").setAttribute("aria-valuetext", `frame ${state.frame}`);
    part("frame").textContent = `frame ${state.frame} of ${shown.frames - 1}`;
    part("psnr").textContent = words(curve()[state.frame]);
    const beside = partner();
    part("beside").textContent = beside
      ? `${content.runs[beside.index].name}: ${words(beside.clip.layers.drawn.psnr[state.frame])}` : "";
    drawCurve();
  }

  const curve = () => (clip().layers[state.drawn] ?? clip().layers.drawn).psnr;
  const words = (level) => (level === null ? "given frame" : typeof level === "string" ? level : `${level.toFixed(2)} dB`);
  const levels = (values) => values.map((value) => (typeof value === "number" ? value : NaN));

  function drawCurve() {
    const canvas = part("curve");
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const best = Object.entries(clip().baselines).sort((a, b) => mean(levels(b[1])) - mean(levels(a[1])))[0];
    const lines = [{ values: levels(curve()), colour: colour("--drawn"), width: 2 }];
    const beside = partner();
    if (beside) lines.unshift({ values: levels(beside.clip.layers.drawn.psnr), colour: colour("--other"), width: 1.5 });
    if (best) lines.unshift({ values: levels(best[1]), colour: colour("--baseline"), width: 1 });
    const all = lines.flatMap((line) => line.values).filter(Number.isFinite);
    const low = Math.floor(Math.min(...all) - 1);
    const high = Math.ceil(Math.max(...all) + 1);
    const last = Math.max(1, clip().frames - 1);
    const x = (frame) => 34 + (frame / last) * (width - 40);
    const y = (level) => 6 + ((high - level) / (high - low)) * (height - 24);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = pen.strokeStyle = colour("--faint");
    const step = Math.max(1, Math.ceil((high - low) / 4));
    for (let level = Math.ceil(low / step) * step; level <= high; level += step) {
      pen.globalAlpha = 0.25;
      line(pen, [[34, y(level)], [width - 6, y(level)]]);
      pen.globalAlpha = 1;
      pen.fillText(`${level}`, 8, y(level) + 4);
    }
    pen.fillText("dB", 8, height - 4);
    pen.fillText("0", 34, height - 4);
    pen.fillText(`${last}`, width - 6 - pen.measureText(`${last}`).width, height - 4);
    for (const each of lines) {
      pen.strokeStyle = each.colour;
      pen.lineWidth = each.width;
      line(pen, each.values.map((level, frame) => [x(frame), y(level)]));
    }
    pen.strokeStyle = colour("--ink");
    pen.lineWidth = 1;
    line(pen, [[x(state.frame), 4], [x(state.frame), height - 18]]);
    part("baseline").textContent = best ? `${best[0]}: ${mean(levels(best[1])).toFixed(2)} dB` : "";
    canvas.setAttribute("aria-label", `PSNR by frame in dB, ${low} to ${high}; now ${words(curve()[state.frame])}`);
  }

  function mean(values) {
    const [first, last] = clip().scored;
    const scored = values.slice(first, last + 1).filter(Number.isFinite);
    return scored.reduce((sum, value) => sum + value, 0) / scored.length;
  }

  function line(pen, points) {
    pen.beginPath();
    let drawing = false;
    for (const [px, py] of points) {
      if (!Number.isFinite(py)) { drawing = false; continue; }
      if (drawing) pen.lineTo(px, py); else pen.moveTo(px, py);
      drawing = true;
    }
    pen.stroke();
  }

  function goTo(frame) {
    state.frame = Math.max(0, Math.min(clip().frames - 1, frame));
    draw();
  }

  function extreme(better) {
    let found = -1;
    levels(curve()).forEach((level, frame) => {
      const [first, last] = clip().scored;
      if (frame < first || frame > last || !Number.isFinite(level)) return;
      if (found < 0 || better(level, curve()[found])) found = frame;
    });
    pause();
    if (found >= 0) goTo(found);
  }

  let timer = 0;
  function play() {
    state.playing = true;
    part("play").textContent = "Pause";
    let before = performance.now();
    const tick = (now) => {
      if (!state.playing) return;
      const due = Math.floor(((now - before) / 1000) * FRAMES_PER_SECOND * state.speed);
      if (due > 0) {
        before += (due * 1000) / (FRAMES_PER_SECOND * state.speed);
        goTo((state.frame + due) % clip().frames);
      }
      timer = requestAnimationFrame(tick);
    };
    timer = requestAnimationFrame(tick);
  }

  function pause() {
    state.playing = false;
    cancelAnimationFrame(timer);
    part("play").textContent = "Play";
  }

  function step(by) {
    pause();
    goTo(state.frame + by);
  }

  const actions = {
    play: () => (state.playing ? pause() : play()),
    back: () => step(-1),
    next: () => step(1),
    best: () => extreme((a, b) => a > b),
    worst: () => extreme((a, b) => a < b),
  };
  for (const [name, action] of Object.entries(actions)) part(name).addEventListener("click", action);
  const choose = (name, set) => part(name).addEventListener("change", (event) => { set(event.target.value); rebuild(); });
  choose("run", (value) => { state.run = Number(value); state.clip = 0; });
  choose("other", (value) => { state.other = Number(value); });
  choose("clip", (value) => { state.clip = Number(value); state.frame = 0; });
  choose("sample", (value) => { state.drawn = value; });
  choose("speed", (value) => { state.speed = Number(value); });
  choose("zoom", (value) => { state.zoom = Number(value); });
  part("scrubber").addEventListener("input", (event) => { pause(); goTo(Number(event.target.value)); });
  part("curve").addEventListener("click", (event) => {
    const box = event.target.getBoundingClientRect();
    step(Math.round(((event.clientX - box.left - 34) / (box.width - 40)) * (clip().frames - 1)) - state.frame);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=range]), textarea")) return;
    const keys = {
      " ": actions.play, ArrowLeft: actions.back, ArrowRight: actions.next, b: actions.best, w: actions.worst,
      Home: () => step(-state.frame), End: () => step(clip().frames),
    };
    if (!keys[event.key] || (event.key === " " && event.target.matches("button, summary, a"))) return;
    event.preventDefault();
    keys[event.key]();
  });
  window.addEventListener("resize", () => { resize(); drawCurve(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCurve);
  rebuild().then(() => {
    root.dataset.ready = "yes";
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  });
})();
