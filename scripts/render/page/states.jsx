// In which state each series was, and for how long.

import { formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { label, shortened, textWidth, TimeAxis } from './axis';

const BOTTOM = 24;
const LEGEND = 24;

export function StatesPanel({ panel, frames, range, width, height, theme }) {
  const { options } = panel;
  const rows = frames.map((frame) => ({
    name: getFieldDisplayName(frame.fields[1], frame, frames),
    parts: partsOf(frame, options.mergeValues ?? true),
  }));
  const legend = options.legend?.showLegend ?? true;
  const widest = Math.max(...rows.map(({ name }) => textWidth(name)));
  const left = Math.min(widest, width * 0.4) + 14;
  const plotWidth = width - left - 8;
  const plotHeight = height - BOTTOM - (legend ? LEGEND : 0);
  const rowHeight = plotHeight / rows.length;
  const bar = rowHeight * Math.min(options.rowHeight ?? 0.9, 0.95);
  const x = (time) => left + ((Math.min(Math.max(time, range.from), range.to) - range.from) / (range.to - range.from)) * plotWidth;
  return (
    <svg width={width} height={height}>
      <TimeAxis from={range.from} to={range.to} left={left} width={plotWidth} top={0} height={plotHeight} theme={theme} />
      {rows.map(({ name, parts }, row) => {
        const middle = (row + 0.5) * rowHeight;
        return (
          <g key={row}>
            <text x={left - 8} y={middle + 4} textAnchor="end" style={label(theme)}>
              {shortened(name, left - 14)}
            </text>
            {parts.map(({ from, to, display }) => (
              <State key={from} x={x(from)} width={x(to) - x(from)} middle={middle} height={bar}
                display={display} show={options.showValue ?? 'auto'} align={options.alignValue ?? 'left'}
                opacity={(panel.fieldConfig.defaults.custom?.fillOpacity ?? 70) / 100} theme={theme} />
            ))}
          </g>
        );
      })}
      {legend && <Legend rows={rows} y={height - 8} theme={theme} />}
    </svg>
  );
}

function State({ x, width, middle, height, display, show, align, opacity, theme }) {
  const text = formattedValueToString(display);
  const fits = textWidth(text) + 8 <= width && height >= 14;
  const places = { left: [x + 5, 'start'], center: [x + width / 2, 'middle'], right: [x + width - 5, 'end'] };
  const [at, anchor] = places[align] ?? places.left;
  return (
    <g>
      <rect x={x} y={middle - height / 2} width={Math.max(width, 1)} height={height} rx={2}
        fill={display.color} fillOpacity={opacity} />
      {show !== 'never' && fits && (
        <text x={at} y={middle + 4} textAnchor={anchor}
          style={{ ...label(theme), fill: theme.colors.getContrastText(display.color, 0.1) }}>
          {text}
        </text>
      )}
    </g>
  );
}

function Legend({ rows, y, theme }) {
  const known = new Map(
    rows.flatMap(({ parts }) => parts.map(({ display }) => [formattedValueToString(display), display.color])),
  );
  let x = 4;
  return [...known].map(([text, color]) => {
    const start = x;
    x += textWidth(text) + 34;
    return (
      <g key={text}>
        <rect x={start} y={y - 7} width={14} height={4} rx={2} fill={color} />
        <text x={start + 20} y={y} style={label(theme)}>{text}</text>
      </g>
    );
  });
}

// Points of the same look that follow each other are one bar; a missing point ends it.
function partsOf({ fields: [time, value] }, merged) {
  const step = time.config.interval;
  const parts = [];
  time.values.forEach((at, index) => {
    if (value.values[index] == null) {
      return;
    }
    const display = value.display(value.values[index]);
    const last = parts.at(-1);
    const same = last && formattedValueToString(last.display) === formattedValueToString(display);
    const follows = last && at - last.to < 0.5 * step;
    if (merged && same && follows) {
      last.to = at + step;
    } else {
      parts.push({ from: at, to: at + step, display });
    }
  });
  return parts;
}
