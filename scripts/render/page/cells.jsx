// Rows of cells over time, for the two panels that are not in Grafana's libraries: heatmaps, and
// timelines of states.

import { colorManipulator, formattedValueToString, getFieldDisplayName, getValueFormat } from '@grafana/data';
import * as d3 from 'd3';
import { Fragment } from 'react';

const AXIS = 22; // pixels for the time below the rows
const SCALE = 30; // pixels for the colours below a heatmap
const CLOSEST = [15, 120]; // pixels between two names of rows, and between two times

function Cells({ rows, range, width, height, gap, kind }) {
  const x = d3.scaleUtc([range.from, range.to], [0, 100]).clamp(true);
  const [closestName, closestTime] = CLOSEST;
  const every = Math.ceil((closestName * rows.length) / (height - AXIS));
  return (
    <div className={`cells ${kind}`} style={{ height, gridTemplateRows: `repeat(${rows.length}, minmax(0, 1fr)) ${AXIS}px` }}>
      <div className="times">
        {x.ticks(width / closestTime).map((time) => (
          <span key={time} style={{ left: `${x(time)}%` }}>
            <b>{d3.utcFormat(time.getUTCSeconds() ? '%H:%M:%S' : '%H:%M')(time)}</b>
          </span>
        ))}
      </div>
      {rows.map(({ name, parts }, row) => (
        <Fragment key={row}>
          <span className="name" style={{ gridRow: row + 1 }}>{(rows.length - 1 - row) % every === 0 && name}</span>
          <div className="track" style={{ gridRow: row + 1 }}>
            {parts.map(({ from, to, text, ...colors }) => (
              <div key={from} className="cell" style={{ ...colors, left: `${x(from)}%`, width: `calc(${x(to) - x(from)}% - ${gap}px)` }}>
                {text && <i />}
                {text}
              </div>
            ))}
          </div>
        </Fragment>
      ))}
    </div>
  );
}

export function StatesPanel({ panel, frames, theme, ...place }) {
  const opacity = (panel.fieldConfig.defaults.custom?.fillOpacity ?? 70) / 100;
  const rows = frames.map((frame) => ({
    name: getFieldDisplayName(frame.fields[1], frame, frames),
    parts: partsOf(frame).map(({ from, to, text, color }) => ({
      from, to, text, background: colorManipulator.alpha(color, opacity), color: theme.colors.getContrastText(color, 0.1),
    })),
  }));
  return <Cells {...place} rows={rows} gap={-0.5} kind="states" />;
}

// Points of the same look that follow each other are one bar; a missing point ends it.
function partsOf({ fields: [time, value] }) {
  const step = time.config.interval;
  const parts = [];
  time.values.forEach((at, index) => {
    if (value.values[index] == null) {
      return;
    }
    const display = value.display(value.values[index]);
    const text = formattedValueToString(display);
    const last = parts.at(-1);
    if (last?.text === text && at - last.to < 0.5 * step) {
      last.to = at + step;
    } else {
      parts.push({ from: at, to: at + step, text, color: display.color });
    }
  });
  return parts;
}

export function HeatmapPanel({ panel, range, width, height }) {
  const { color = {}, yAxis = {}, cellValues = {}, filterValues = {} } = panel.options;
  const buckets = bucketsOf(panel.answers);
  const most = Math.max(...buckets.flatMap(({ counts }) => counts.map(([, count]) => count)), 0);
  const { scheme = 'Oranges', exponent = 0.5, steps = 64 } = color;
  // On black, few is dark: the scheme runs the other way round.
  const paint = (share) => d3[`interpolate${scheme}`](1 - Math.round(share ** exponent * (steps - 1)) / (steps - 1));
  const { step } = panel.answers[0];
  // Between cells of a few pixels a gap would be most of the image.
  const gap = (step / (range.to - range.from)) * width >= 4 ? 1 : 0;
  const named = (unit, value) => formattedValueToString(getValueFormat(unit ?? 'short')(value, 2));
  const rows = buckets.map(({ le, counts }) => ({
    name: le === Infinity ? '+Inf' : formattedValueToString(getValueFormat(yAxis.unit ?? 'short')(le)),
    parts: counts
      .filter(([, count]) => count > (filterValues.le ?? -Infinity))
      .map(([time, count]) => ({ from: time - step, to: time, background: paint(count / most) })),
  }));
  const colors = d3.range(0, 1, 0.02).map(paint).join();
  return (
    <>
      <Cells rows={rows.reverse()} range={range} width={width} height={height - SCALE} gap={gap} kind="heat" />
      <div className="scale">
        0 <i style={{ background: `linear-gradient(to right, ${colors})` }} /> {named(cellValues.unit, most)}
      </div>
    </>
  );
}

// Prometheus counts everything up to a bound; a row shows what lies between two.
function bucketsOf(answers) {
  const cumulative = answers
    .flatMap(({ series }) => series)
    .filter(({ metric }) => metric.le)
    .map(({ metric, values }) => ({
      le: Number(metric.le.replace('Inf', 'Infinity')),
      values: new Map(values.map(([time, value]) => [time * 1000, Number(value)])),
    }))
    .sort((a, b) => a.le - b.le);
  return cumulative.map(({ le, values }, index) => ({
    le,
    counts: [...values].map(([time, value]) => [
      time,
      Math.max(0, value - (cumulative[index - 1]?.values.get(time) ?? 0)),
    ]),
  }));
}
