// A time axis for the panels that are drawn here, and the width of a text.

import { dateTimeFormat } from '@grafana/data';
import { TIME_ZONE } from './frames';

const STEPS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
].map((seconds) => seconds * 1000);
const CLOSEST = 70; // pixels between two labels

export function TimeAxis({ from, to, left, width, top, height, theme }) {
  const step = STEPS.find((one) => (one / (to - from)) * width >= CLOSEST) ?? STEPS.at(-1);
  const ticks = [];
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    ticks.push(time);
  }
  const format = step < 60000 ? 'HH:mm:ss' : step < 86400000 ? 'HH:mm' : 'MM-DD';
  return (
    <g>
      {ticks.map((time) => {
        const x = left + ((time - from) / (to - from)) * width;
        const text = dateTimeFormat(time, { format, timeZone: TIME_ZONE });
        const half = textWidth(text) / 2;
        return (
          <g key={time}>
            <line x1={x} x2={x} y1={top} y2={top + height} stroke="rgba(240,250,255,0.09)" />
            {x + half <= left + width + 8 && (
              <text x={x} y={top + height + 17} textAnchor="middle" style={label(theme)}>
                {text}
              </text>
            )}
          </g>
        );
      })}
    </g>
  );
}

export function label(theme) {
  return { fill: theme.colors.text.primary, fontSize: 12, fontFamily: theme.typography.fontFamily };
}

const context = document.createElement('canvas').getContext('2d');

export function textWidth(text, size = 12, weight = 400) {
  context.font = `${weight} ${size}px 'Inter Variable'`;
  return context.measureText(text).width;
}

export function shortened(text, width, size = 12) {
  if (textWidth(text, size) <= width) {
    return text;
  }
  let end = text.length;
  while (end > 1 && textWidth(`${text.slice(0, end)}…`, size) > width) {
    end -= 1;
  }
  return `${text.slice(0, end)}…`;
}
