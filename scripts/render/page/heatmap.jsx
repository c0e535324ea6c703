// How a histogram's buckets fill over time: one row a bucket, the fuller the brighter.

import { formattedValueToString, getValueFormat } from '@grafana/data';
import * as chromatic from 'd3-scale-chromatic';
import { label, textWidth, TimeAxis } from './axis';

const BOTTOM = 22;
const SCALE = 30; // the colour scale below
const BETWEEN = 15; // pixels between two labels of the y axis

export function HeatmapPanel({ panel, range, width, height, theme }) {
  const { options } = panel;
  const rows = bucketsOf(panel.answers);
  const format = getValueFormat(options.yAxis?.unit ?? 'short');
  const name = (le) => (le === Infinity ? '+Inf' : formattedValueToString(format(le, options.yAxis?.decimals)));
  const names = rows.map(({ le }) => name(le));
  const left = Math.ceil(Math.max(...names.map((text) => textWidth(text)))) + 14;
  const top = 6;
  const plotWidth = width - left - 6;
  const plotHeight = height - top - BOTTOM - (options.legend?.show === false ? 0 : SCALE);
  const rowHeight = plotHeight / rows.length;
  const step = panel.answers[0].step;
  const hidden = options.filterValues?.le ?? -Infinity;
  const most = Math.max(...rows.flatMap(({ counts }) => [...counts.values()]), 0);
  const paint = painter(options.color ?? {}, theme);
  const x = (time) => left + ((time - range.from) / (range.to - range.from)) * plotWidth;
  // Between cells of a few pixels a gap would be most of the picture.
  const gap = x(step) - x(0) >= 4 ? Math.min(options.cellGap ?? 1, 1) : 0;
  const every = Math.ceil(BETWEEN / rowHeight);
  return (
    <svg width={width} height={height}>
      <TimeAxis from={range.from} to={range.to} left={left} width={plotWidth} top={top} height={plotHeight} theme={theme} />
      {rows.map(({ counts }, row) => {
        const y = top + plotHeight - (row + 1) * rowHeight;
        return (
          <g key={row}>
            {[...counts].map(([time, count]) => {
              const start = Math.max(x(time - step), left);
              const end = Math.min(x(time), left + plotWidth);
              return count > hidden && end - start > gap ? (
                <rect key={time} x={start} y={y + gap} width={end - start - gap}
                  height={Math.max(rowHeight - gap, 1)} fill={paint(count / most)} />
              ) : null;
            })}
            {row % every === 0 && (
              <text x={left - 8} y={Math.max(y + 4, top + 6)} textAnchor="end" style={label(theme)}>
                {names[row]}
              </text>
            )}
          </g>
        );
      })}
      {options.legend?.show !== false && (
        <ColorScale y={height - 18} left={left} width={Math.min(220, plotWidth)} most={most} paint={paint}
          format={getValueFormat(options.cellValues?.unit ?? 'short')} theme={theme} />
      )}
    </svg>
  );
}

function ColorScale({ y, left, width, most, paint, format, theme }) {
  const parts = 44;
  return (
    <g>
      <text x={left} y={y + 11} style={label(theme)}>0</text>
      {Array.from({ length: parts }, (_, part) => (
        <rect key={part} x={left + 14 + (part * width) / parts} y={y + 2} width={width / parts + 0.5}
          height={10} fill={paint((part + 0.5) / parts)} />
      ))}
      <text x={left + 20 + width} y={y + 11} style={label(theme)}>
        {formattedValueToString(format(most, 2))}
      </text>
    </g>
  );
}

// Prometheus counts everything up to a bound; a row shows what lies between two.
function bucketsOf(answers) {
  const cumulative = answers
    .flatMap(({ series }) => series)
    .map(({ metric, values }) => ({
      le: Number((metric.le ?? 'NaN').replace('Inf', 'Infinity')),
      values: new Map(values.map(([time, value]) => [time * 1000, Number(value)])),
    }))
    .filter(({ le }) => !Number.isNaN(le))
    .sort((a, b) => a.le - b.le);
  return cumulative.map(({ le, values }, index) => ({
    le,
    counts: new Map(
      [...values].map(([time, value]) => [
        time,
        Math.max(0, value - (cumulative[index - 1]?.values.get(time) ?? 0)),
      ]),
    ),
  }));
}

function painter({ scheme = 'Oranges', scale = 'exponential', exponent = 0.5, steps = 64, reverse = false }, theme) {
  const colors = chromatic[`interpolate${scheme}`] ?? chromatic.interpolateOranges;
  // On black, few is dark: the schemes of one hue run the other way round.
  const turned = reverse !== (theme.isDark && /s$/.test(scheme) && scheme !== 'Spectral');
  return (share) => {
    const bent = scale === 'exponential' ? share ** exponent : share;
    const stepped = Math.round(bent * (steps - 1)) / (steps - 1);
    return colors(turned ? 1 - stepped : stepped);
  };
}
