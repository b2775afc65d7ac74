{{/* The name of every object of the chart: that of the release, followed by that of the chart unless it contains it. */}}
{{- define "orders-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of an object that belongs to no namespace: one of its own for each release, since releases of the same name may be
     in several namespaces. Takes a list: the root, the suffix. */}}
{{- define "orders-operator.clusterName" -}}
{{- $root := index . 0 -}}
{{- printf "%s:%s%s" $root.Release.Namespace (include "orders-operator.fullname" $root) (index . 1) -}}
{{- end -}}

{{/* The operator's pods: one kind with both containers, or one for each. Every object of a pod has its suffix. */}}
{{- define "orders-operator.pods" -}}
{{- $name := include "orders-operator.fullname" . -}}
{{- $account := include "orders-operator.account" (list .Values.serviceAccount $name) -}}
pods:
{{- if .Values.sweeper.separate }}
  {{- $sweeper := include "orders-operator.account" (list .Values.sweeper.serviceAccount (printf "%s-sweeper" $name)) }}
  {{- if eq $account $sweeper }}
  {{- fail (printf "controller and sweeper both have the ServiceAccount %s, so each could do what the other may: name another in serviceAccount.name or sweeper.serviceAccount.name, or leave sweeper.separate false" $account) }}
  {{- end }}
  - {suffix: "", replicas: {{ .Values.replicas }}, containers: [controller], account: {{ $account }}, accountValues: {{ toJson .Values.serviceAccount }}}
  - {suffix: -sweeper, replicas: {{ .Values.sweeper.replicas }}, containers: [sweeper], account: {{ $sweeper }}, accountValues: {{ toJson .Values.sweeper.serviceAccount }}}
{{- else }}
  - {suffix: "", replicas: {{ .Values.replicas }}, containers: [controller, sweeper], account: {{ $account }}, accountValues: {{ toJson .Values.serviceAccount }}}
{{- end }}
{{- end -}}

{{/* The name of a ServiceAccount. Takes a list: its values, the name that it has by default. */}}
{{- define "orders-operator.account" -}}
{{- $values := index . 0 -}}
{{- $values.name | default (ternary (index . 1) "default" $values.create) -}}
{{- end -}}

{{/* The labels that select the pods of a suffix. They must never change: a Deployment's selector is immutable. Takes a list: the root, the suffix. */}}
{{- define "orders-operator.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{/* The labels of the objects of a suffix. Takes a list: the root, the suffix. */}}
{{- define "orders-operator.labelsOf" -}}
{{ include "orders-operator.selectorLabels" . }}
{{ include "orders-operator.commonLabels" (index . 0) }}
{{- end -}}

{{/* The labels of the objects of no pod, or of the first. */}}
{{- define "orders-operator.labels" -}}
{{ include "orders-operator.labelsOf" (list . "") }}
{{- end -}}

{{- define "orders-operator.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The Lease of the controllers' leader election. */}}
{{- define "orders-operator.leaseName" -}}
{{- printf "%s-controller" (include "orders-operator.fullname" .) -}}
{{- end -}}

{{/* The Lease by which the sweepers know each other. */}}
{{- define "orders-operator.sweeperLeaseName" -}}
{{- printf "%s-sweeper" (include "orders-operator.fullname" .) -}}
{{- end -}}

{{/* The image, by its digest or else its tag. A tag of digits is a number to helm. */}}
{{- define "orders-operator.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- $tag := .tag | default $.Chart.AppVersion -}}
{{- printf "%s:%s" .repository (ternary $tag (printf "%.0f" (float64 $tag)) (kindIs "string" $tag)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where a container finds the token of its service account: at no usual path, and at another than its neighbour. */}}
{{- define "orders-operator.accountPath" -}}
/var/run/secrets/orders-operator/{{ . }}
{{- end -}}

{{/* Environment variables of both containers. */}}
{{- define "orders-operator.commonEnv" -}}
- {name: LISTEN_ADDRESS, value: {{ .Values.listenAddress | quote }}}
- {name: LOG_LEVEL, value: {{ .Values.log.level | quote }}}
- {name: LOG_FORMAT, value: {{ .Values.log.format | quote }}}
{{- with .Values.otlp.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if include "orders-operator.otlpCa" . }}
- {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /etc/orders-operator/otlp/ca.crt}
{{- end }}
{{- with .Values.watchNamespaces }}
- {name: WATCH_NAMESPACE, value: {{ join "," . | quote }}}
{{- end }}
{{- end -}}

{{/* Environment variables of the controller. */}}
{{- define "orders-operator.controllerEnv" -}}
- {name: DEFAULT_IMAGE, value: {{ include "orders-operator.image" . | quote }}}
- {name: SERVICE_ACCOUNT_PATH, value: {{ include "orders-operator.accountPath" "controller" }}}
- {name: LEASE_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: LEASE_NAME, value: {{ include "orders-operator.leaseName" . | quote }}}
- {name: CONCURRENCY, value: {{ .Values.controller.concurrency | quote }}}
{{- with .Values.controller.rollout }}
- {name: ROLLOUT_MAX_CONCURRENT, value: {{ .maxConcurrent | quote }}}
- {name: ROLLOUT_PAUSE_SECONDS, value: {{ .pauseSeconds | quote }}}
- {name: ROLLOUT_STOP_AFTER_FAILURES, value: {{ .stopAfterFailures | quote }}}
{{- end }}
- {name: USER_FROM_CLUSTER, value: {{ .Values.userFromCluster | quote }}}
- {name: HOST_POLICY, value: {{ .Values.controller.hostPolicy | quote }}}
- {name: TRAEFIK_SAFE_NAMING, value: {{ .Values.controller.traefikSafeNaming | quote }}}
- {name: INGRESS_CLASSES, value: {{ .Values.ingressClasses.enabled | quote }}}
{{- if .Values.controller.hosts }}
- {name: HOSTS_FILE, value: /etc/orders-operator/hosts/hosts.yaml}
{{- end }}
- {name: SECRET_REFRESH_SECONDS, value: {{ .Values.controller.secretRefreshSeconds | quote }}}
- {name: ADMIN_PORT, value: "8081"}
- {name: WATCH_TIMEOUT_SECONDS, value: {{ .Values.watchTimeoutSeconds | quote }}}
{{- end -}}

{{/* Environment variables of the sweeper. */}}
{{- define "orders-operator.sweeperEnv" -}}
- {name: SERVICE_ACCOUNT_PATH, value: {{ include "orders-operator.accountPath" "sweeper" }}}
- {name: LEASE_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: LEASE_NAME, value: {{ include "orders-operator.sweeperLeaseName" . | quote }}}
- {name: MAX_SLEEP_SECONDS, value: {{ .Values.sweeper.maxSleepSeconds | quote }}}
- {name: ADMIN_PORT, value: "8082"}
- {name: WATCH_TIMEOUT_SECONDS, value: {{ .Values.watchTimeoutSeconds | quote }}}
{{- end -}}

{{- define "orders-operator.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 10
{{- end -}}

{{- define "orders-operator.podSecurity" -}}
{{- $own := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if not .Values.userFromCluster -}}
{{- $_ := set $own "runAsUser" 65532 -}}
{{- $_ := set $own "runAsGroup" 65532 -}}
{{- end -}}
{{- mergeOverwrite $own (deepCopy .Values.podSecurityContext) | toYaml -}}
{{- end -}}

{{- define "orders-operator.containerSecurity" -}}
{{- $own := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "runAsNonRoot" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- mergeOverwrite $own (deepCopy .Values.securityContext) | toYaml -}}
{{- end -}}

{{/* The environment of a container: the chart's own variables, and then those of the values, which may repeat none of them. Takes
     a list: the root, the container's own. */}}
{{- define "orders-operator.env" -}}
{{- $root := index . 0 -}}
{{- $own := printf "%s\n%s" (index . 1) (include "orders-operator.commonEnv" $root) -}}
{{- range $root.Values.extraEnv -}}
{{- $name := .name -}}
{{- range fromYamlArray $own -}}
{{- if eq .name $name -}}
{{- fail (printf "extraEnv has %s, which the chart itself sets: set the value for it, see values.yaml" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $own -}}
{{- with $root.Values.extraEnv }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* A volume with the token of the pod's service account, for one container; the kubelet renews it. */}}
{{- define "orders-operator.accountVolume" -}}
- name: {{ . }}-account
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]}
{{- end -}}

{{/* The source of the volume with the CA of the OTLP endpoint, if there is one. */}}
{{- define "orders-operator.otlpCa" -}}
{{- $items := list (dict "key" .Values.otlp.ca.key "path" "ca.crt") -}}
{{- if and .Values.otlp.ca.configMap .Values.otlp.ca.secret -}}
{{- fail "otlp.ca.configMap and otlp.ca.secret are both set: remove one" -}}
{{- else if .Values.otlp.ca.configMap -}}
configMap: {{ dict "name" .Values.otlp.ca.configMap "items" $items | toJson }}
{{- else if .Values.otlp.ca.secret -}}
secret: {{ dict "secretName" .Values.otlp.ca.secret "items" $items | toJson }}
{{- end -}}
{{- end -}}

{{/* What both containers have in common. Takes a list: the root, the container, its resources. */}}
{{- define "orders-operator.container" -}}
{{- $root := index . 0 }}{{ $name := index . 1 -}}
image: {{ include "orders-operator.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [{{ $name }}]
ports:
  - {name: {{ $name }}, containerPort: {{ ternary 8081 8082 (eq $name "controller") }}, protocol: TCP}
{{ include "orders-operator.probes" $name }}
resources: {{- toYaml (index . 2) | nindent 2 }}
securityContext: {{- include "orders-operator.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: {{ $name }}-account, mountPath: {{ include "orders-operator.accountPath" $name }}, readOnly: true}
  {{- if and $root.Values.controller.hosts (eq $name "controller") }}
  # The whole folder: a single file of a ConfigMap would never change.
  - {name: hosts, mountPath: /etc/orders-operator/hosts, readOnly: true}
  {{- end }}
  {{- if include "orders-operator.otlpCa" $root }}
  - {name: otlp-ca, mountPath: /etc/orders-operator/otlp, readOnly: true}
  {{- end }}
  {{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
