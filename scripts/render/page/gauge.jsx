// A dial: an arc up to the value, and around it the thresholds.

import { formattedValueToString, getActiveThreshold } from '@grafana/data';
import { label, shortened, textWidth } from './axis';

const START = -210; // degrees from three o'clock; the dial is open at the bottom
const SWEEP = 240;

export function Dial({ display, config, width, height, theme }) {
  const min = config.min ?? 0;
  const max = config.max ?? 100;
  const share = (value) => Math.min(1, Math.max(0, (value - min) / (max - min)));
  const room = display.title ? 20 : 0;
  const radius = Math.max(10, Math.min(width / 2, (height - room) / 1.55) - 6);
  const x = width / 2;
  const y = radius + 6;
  const steps = (config.thresholds?.steps ?? []).map(({ color, value }) => ({ color, value }));
  const ends = steps.slice(1).map(({ value }) => value).concat(max);
  const text = formattedValueToString(display);
  const size = Math.min(radius / 2, (1.2 * radius * 16) / textWidth(text, 16, 500));
  return (
    <svg width={width} height={height}>
      <Arc {...{ x, y, radius: radius * 0.82, from: 0, to: 1, thickness: radius * 0.24 }}
        color={theme.colors.background.secondary} />
      {Number.isFinite(display.numeric) && (
        <Arc {...{ x, y, radius: radius * 0.82, from: 0, to: share(display.numeric), thickness: radius * 0.24 }}
          color={display.color ?? colorAt(display.numeric, steps, theme)} />
      )}
      {steps.map((step, index) => (
        <Arc key={index}
          {...{ x, y, radius: radius * 0.98, from: share(step.value ?? min), to: share(ends[index]), thickness: radius * 0.04 }}
          color={theme.visualization.getColorByName(step.color)} />
      ))}
      <text x={x} y={y + size / 3} textAnchor="middle"
        style={{ ...label(theme), fontSize: size, fontWeight: 500, fill: display.color ?? theme.colors.text.primary }}>
        {text}
      </text>
      {display.title && (
        <text x={x} y={height - 5} textAnchor="middle" style={{ ...label(theme), fontSize: 13 }}>
          {shortened(display.title, width, 13)}
        </text>
      )}
    </svg>
  );
}

function colorAt(value, steps, theme) {
  return theme.visualization.getColorByName(getActiveThreshold(value, steps).color);
}

function Arc({ x, y, radius, from, to, thickness, color }) {
  if (to <= from) {
    return null;
  }
  const point = (share) => {
    const angle = ((START + SWEEP * share) * Math.PI) / 180;
    return `${x + radius * Math.cos(angle)} ${y + radius * Math.sin(angle)}`;
  };
  const large = SWEEP * (to - from) > 180 ? 1 : 0;
  return (
    <path d={`M ${point(from)} A ${radius} ${radius} 0 ${large} 1 ${point(to)}`}
      fill="none" stroke={color} strokeWidth={thickness} />
  );
}
