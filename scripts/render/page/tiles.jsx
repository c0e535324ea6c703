// Single numbers: tiles, bars and gauges.

import {
  FieldType,
  getDisplayProcessor,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  VizOrientation,
} from '@grafana/data';
import { BarGauge, BigValue, VizRepeater } from '@grafana/ui';
import { TIME_ZONE } from './frames';
import { Dial } from './gauge';

function valuesOf(panel, frames, theme, sparkline) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: { calcs: ['lastNotNull'], values: false, fields: '', ...panel.options.reduceOptions },
    replaceVariables: (text) => text,
    theme,
    data: frames,
    sparkline,
    timeZone: TIME_ZONE,
  });
}

// One value needs no name beside the panel's title.
function unnamed(count, panel, display) {
  return count === 1 && !panel.fieldConfig.defaults.displayName
    ? { ...display, title: undefined }
    : display;
}

function Repeated({ panel, frames, theme, width, height, sparkline, children, ...more }) {
  return (
    <VizRepeater
      getValues={() => valuesOf(panel, frames, theme, sparkline)}
      getAlignmentFactors={(values) => getDisplayValueAlignmentFactors(values)}
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
  const { panel, theme } = props;
  const { options } = panel;
  return (
    <Repeated {...props} sparkline={options.graphMode !== 'none'} itemSpacing={3} autoGrid>
      {({ value, width, height, count, alignmentFactors }) => (
        <BigValue
          value={value.display}
          count={count}
          sparkline={value.sparkline}
          colorMode={options.colorMode ?? 'value'}
          graphMode={options.graphMode ?? 'area'}
          justifyMode={options.justifyMode ?? 'auto'}
          textMode={options.textMode ?? 'auto'}
          alignmentFactors={alignmentFactors}
          text={options.text}
          width={width}
          height={height}
          theme={theme}
          disableWideLayout={!(options.wideLayout ?? true)}
        />
      )}
    </Repeated>
  );
}

export function BarGaugePanel(props) {
  const { panel, theme } = props;
  const { options } = panel;
  const automatic = (options.sizing ?? 'auto') === 'auto';
  return (
    <Repeated
      {...props}
      itemSpacing={options.displayMode === 'lcd' ? 2 : 10}
      minVizWidth={automatic ? 8 : options.minVizWidth}
      minVizHeight={automatic ? 16 : options.minVizHeight}
      maxVizHeight={automatic ? 300 : options.maxVizHeight}
    >
      {({ value, width, height, count, orientation, alignmentFactors }) => (
        <BarGauge
          value={unnamed(count, panel, value.display)}
          width={width}
          height={height}
          orientation={orientation}
          field={value.field}
          display={getDisplayProcessor({
            field: { type: FieldType.number, config: value.field, values: [] },
            theme,
            timeZone: TIME_ZONE,
          })}
          theme={theme}
          text={options.text}
          itemSpacing={options.displayMode === 'lcd' ? 2 : 10}
          lcdCellWidth={12}
          displayMode={options.displayMode ?? 'gradient'}
          alignmentFactors={alignmentFactors}
          showUnfilled={options.showUnfilled ?? true}
          valueDisplayMode={options.valueMode ?? 'color'}
          namePlacement={options.namePlacement ?? 'auto'}
          isOverflow={false}
        />
      )}
    </Repeated>
  );
}

export function GaugePanel(props) {
  const { panel, theme } = props;
  return (
    <Repeated {...props} itemSpacing={8} autoGrid>
      {({ value, width, height, count }) => (
        <Dial
          display={unnamed(count, panel, value.display)}
          config={value.field}
          width={width}
          height={height}
          theme={theme}
        />
      )}
    </Repeated>
  );
}
