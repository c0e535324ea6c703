// Single numbers: tiles and bars.

import {
  FieldType,
  getDisplayProcessor,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  VizOrientation,
} from '@grafana/data';
import { BarGauge, BigValue, VizRepeater } from '@grafana/ui';
import { TIME_ZONE } from './frames';

const STAT = { colorMode: 'value', graphMode: 'area', justifyMode: 'auto', textMode: 'auto', wideLayout: true };
const BARS = { displayMode: 'gradient', showUnfilled: true, valueMode: 'color', namePlacement: 'auto' };
// As Grafana sizes bars where a panel leaves it to it.
const SIZING = { minVizWidth: 8, minVizHeight: 16, maxVizHeight: 300 };

function Repeated({ panel, frames, theme, width, height, sparkline, children, ...more }) {
  const values = () =>
    getFieldDisplayValues({
      fieldConfig: panel.fieldConfig,
      reduceOptions: { calcs: ['lastNotNull'], values: false, fields: '', ...panel.options.reduceOptions },
      replaceVariables: (text) => text,
      theme,
      data: frames,
      sparkline,
      timeZone: TIME_ZONE,
    });
  return (
    <VizRepeater
      getValues={values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={children}
      width={width}
      height={height}
      source={frames}
      renderCounter={0}
      orientation={panel.options.orientation ?? VizOrientation.Auto}
      {...more}
    />
  );
}

export function StatPanel(props) {
  const options = { ...STAT, ...props.panel.options };
  return (
    <Repeated {...props} sparkline={options.graphMode !== 'none'} itemSpacing={3} autoGrid>
      {({ value, ...place }) => (
        <BigValue
          {...options}
          {...place}
          value={value.display}
          sparkline={value.sparkline}
          theme={props.theme}
          disableWideLayout={!options.wideLayout}
        />
      )}
    </Repeated>
  );
}

export function BarGaugePanel(props) {
  const { panel, theme } = props;
  const options = { ...BARS, ...panel.options };
  const itemSpacing = options.displayMode === 'lcd' ? 2 : 10;
  return (
    <Repeated {...props} {...SIZING} itemSpacing={itemSpacing}>
      {({ value, count, ...place }) => (
        <BarGauge
          {...options}
          {...place}
          // One value needs no name beside the panel's title.
          value={count === 1 ? { ...value.display, title: undefined } : value.display}
          field={value.field}
          display={getDisplayProcessor({
            field: { type: FieldType.number, config: value.field, values: [] },
            theme,
            timeZone: TIME_ZONE,
          })}
          theme={theme}
          itemSpacing={itemSpacing}
          lcdCellWidth={12}
          valueDisplayMode={options.valueMode}
          isOverflow={false}
        />
      )}
    </Repeated>
  );
}
