// The controller's twin for benchmarks: the same children of the same resource, as operators in Go are usually written,
// with controller-runtime and CreateOrUpdate. It looks at no Secret, judges no routes and repairs no drift of fields
// that it does not set, so it has less to do. With TWIN_WRITES=apply every write is a server-side apply instead, of
// what differs from what was applied last, so that the price of that alone is known.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

type backend struct {
	Path    string `json:"path,omitempty"`
	Service string `json:"service,omitempty"`
	Port    int32  `json:"port,omitempty"`
}

type ingress struct {
	Hosts  []string  `json:"hosts,omitempty"`
	Path   string    `json:"path,omitempty"`
	Routes []backend `json:"routes,omitempty"`
	Client *backend  `json:"client,omitempty"`
}

type spec struct {
	Image    string   `json:"image,omitempty"`
	Replicas *int32   `json:"replicas,omitempty"`
	Port     int32    `json:"port,omitempty"`
	Ingress  *ingress `json:"ingress,omitempty"`
}

type status struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Replicas           int32              `json:"replicas,omitempty"`
	ReadyReplicas      int32              `json:"readyReplicas,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// OrdersService is the resource, as far as the twin reads it.
type OrdersService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              spec   `json:"spec,omitempty"`
	Status            status `json:"status,omitempty"`
}

// OrdersServiceList is a list of them.
type OrdersServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []OrdersService `json:"items"`
}

func (in *OrdersService) deepCopy() *OrdersService {
	out := *in
	out.ObjectMeta = *in.ObjectMeta.DeepCopy()
	if in.Spec.Replicas != nil {
		number := *in.Spec.Replicas
		out.Spec.Replicas = &number
	}
	if in.Spec.Ingress != nil {
		copied := *in.Spec.Ingress
		copied.Hosts = append([]string(nil), copied.Hosts...)
		copied.Routes = append([]backend(nil), copied.Routes...)
		if copied.Client != nil {
			front := *copied.Client
			copied.Client = &front
		}
		out.Spec.Ingress = &copied
	}
	out.Status.Conditions = append([]metav1.Condition(nil), in.Status.Conditions...)
	return &out
}

// DeepCopyObject makes it a runtime.Object.
func (in *OrdersService) DeepCopyObject() runtime.Object { return in.deepCopy() }

// DeepCopyObject makes it a runtime.Object.
func (in *OrdersServiceList) DeepCopyObject() runtime.Object {
	out := *in
	out.Items = make([]OrdersService, len(in.Items))
	for i := range in.Items {
		out.Items[i] = *in.Items[i].deepCopy()
	}
	return &out
}

var group = schema.GroupVersion{Group: "ticketing.dev", Version: "v1alpha1"}

type reconciler struct {
	client.Client
	scheme *runtime.Scheme
	// What was applied last, by kind and name; nil where writes are updates.
	applied *sync.Map
}

// Applies an object, status included where it is a subresource, unless the same was applied before.
func (r *reconciler) apply(ctx context.Context, object client.Object, write func(client.Object) error) error {
	kind, err := apiutil.GVKForObject(object, r.scheme)
	if err != nil {
		return err
	}
	object.GetObjectKind().SetGroupVersionKind(kind)
	wanted, err := json.Marshal(object)
	if err != nil {
		return err
	}
	key := kind.Kind + "/" + client.ObjectKeyFromObject(object).String()
	if before, found := r.applied.Load(key); found && bytes.Equal(before.([]byte), wanted) {
		return nil
	}
	if err := write(object); err != nil {
		return err
	}
	r.applied.Store(key, wanted)
	return nil
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var owner OrdersService
	if err := r.Get(ctx, request.NamespacedName, &owner); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	labels := map[string]string{
		"app.kubernetes.io/name": "orders-service", "app.kubernetes.io/instance": owner.Name,
		"app.kubernetes.io/managed-by": "twin",
	}
	of := metav1.ObjectMeta{Name: owner.Name, Namespace: owner.Namespace}
	port := owner.Spec.Port
	if port == 0 {
		port = 3000
	}
	account := &corev1.ServiceAccount{ObjectMeta: of}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: of}
	deployment := &appsv1.Deployment{ObjectMeta: of}
	service := &corev1.Service{ObjectMeta: of}
	routes := &networkingv1.Ingress{ObjectMeta: of}
	no, tcp := false, corev1.ProtocolTCP
	for _, child := range []struct {
		object client.Object
		mutate func()
	}{
		{account, func() { account.AutomountServiceAccountToken = &no }},
		{policy, func() {
			target := intstr.FromInt32(port)
			policy.Spec.PodSelector.MatchLabels = labels
			policy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
				Ports: []networkingv1.NetworkPolicyPort{{Port: &target, Protocol: &tcp}}}}
		}},
		{deployment, func() {
			deployment.Spec.Replicas = owner.Spec.Replicas
			deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
			deployment.Spec.Template.Labels = labels
			pod := &deployment.Spec.Template.Spec
			if len(pod.Containers) == 0 {
				pod.Containers = []corev1.Container{{Name: "orders-api"}}
			}
			container := &pod.Containers[0]
			container.Image = owner.Spec.Image
			container.Args = []string{"serve"}
			container.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: port, Protocol: tcp}}
			pod.ServiceAccountName = owner.Name
		}},
		{service, func() {
			service.Spec.Selector = labels
			service.Spec.Ports = []corev1.ServicePort{{
				Name: "http", Port: port, TargetPort: intstr.FromString("http"), Protocol: tcp}}
		}},
		{routes, func() { routes.Spec.Rules = rules(&owner, port) }},
	} {
		complete := func() error {
			current := child.object.GetLabels()
			if current == nil {
				current = map[string]string{}
			}
			for key, value := range labels {
				current[key] = value
			}
			child.object.SetLabels(current)
			child.mutate()
			return controllerutil.SetControllerReference(&owner, child.object, r.scheme)
		}
		var err error
		if r.applied == nil {
			_, err = controllerutil.CreateOrUpdate(ctx, r.Client, child.object, complete)
		} else if err = complete(); err == nil {
			err = r.apply(ctx, child.object, func(object client.Object) error {
				return r.Patch(ctx, object, client.Apply, client.ForceOwnership, client.FieldOwner("twin"))
			})
		}
		if err != nil {
			return ctrl.Result{}, err
		}
	}
	if r.applied != nil {
		// An apply's answer would be the state of the moment; what changes later is in the cache.
		if err := r.Get(ctx, client.ObjectKeyFromObject(deployment), deployment); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, err
		}
	}
	before := owner.deepCopy()
	owner.Status.ObservedGeneration = owner.Generation
	owner.Status.Replicas = deployment.Status.Replicas
	owner.Status.ReadyReplicas = deployment.Status.ReadyReplicas
	for _, kind := range []string{"Valid", "Reconciled", "IngressReady"} {
		meta.SetStatusCondition(&owner.Status.Conditions, metav1.Condition{
			Type: kind, Status: metav1.ConditionTrue, Reason: "AsExpected", Message: "every child was applied",
			ObservedGeneration: owner.Generation})
	}
	if reflect.DeepEqual(before.Status, owner.Status) {
		return ctrl.Result{}, nil
	}
	if r.applied != nil {
		wanted := &OrdersService{ObjectMeta: metav1.ObjectMeta{Name: owner.Name, Namespace: owner.Namespace}, Status: owner.Status}
		return ctrl.Result{}, r.apply(ctx, wanted, func(object client.Object) error {
			return r.Status().Patch(ctx, object, client.Apply, client.ForceOwnership, client.FieldOwner("twin"))
		})
	}
	return ctrl.Result{}, r.Status().Update(ctx, &owner)
}

func rules(owner *OrdersService, port int32) []networkingv1.IngressRule {
	if owner.Spec.Ingress == nil {
		return nil
	}
	prefix := networkingv1.PathTypePrefix
	all := append([]backend{{Path: "/api/orders", Service: owner.Name, Port: port}, {Path: "/api/users", Service: "auth", Port: 80}},
		*owner.Spec.Ingress.Client)
	var rules []networkingv1.IngressRule
	for _, host := range owner.Spec.Ingress.Hosts {
		var paths []networkingv1.HTTPIngressPath
		for _, to := range all {
			path := to.Path
			if path == "" {
				path = "/"
			}
			paths = append(paths, networkingv1.HTTPIngressPath{Path: path, PathType: &prefix, Backend: networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: to.Service, Port: networkingv1.ServiceBackendPort{Number: to.Port}}}})
		}
		rules = append(rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: paths}}})
	}
	return rules
}

// The benchmark reads the metrics by the product's names.
func page(writer http.ResponseWriter, _ *http.Request) {
	families, err := metrics.Registry.(prometheus.Gatherer).Gather()
	if err != nil {
		http.Error(writer, err.Error(), http.StatusInternalServerError)
		return
	}
	const prefix = "orders_operator_controller_"
	histogram := func(name string, metric *dto.Metric) {
		for _, bucket := range metric.GetHistogram().GetBucket() {
			fmt.Fprintf(writer, "%s%s_bucket{le=\"%g\"} %d\n", prefix, name, bucket.GetUpperBound(), bucket.GetCumulativeCount())
		}
		fmt.Fprintf(writer, "%s%s_bucket{le=\"+Inf\"} %d\n", prefix, name, metric.GetHistogram().GetSampleCount())
	}
	verbs := map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
	fmt.Fprintf(writer, "%sleading 1\n", prefix)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			label := func(name string) string {
				for _, pair := range metric.GetLabel() {
					if pair.GetName() == name {
						return pair.GetValue()
					}
				}
				return ""
			}
			switch family.GetName() {
			case "controller_runtime_reconcile_total":
				result := label("result")
				if result == "success" {
					result = "ok"
				}
				fmt.Fprintf(writer, "%sreconciles_total{result=%q} %g\n", prefix, result, metric.GetCounter().GetValue())
			case "controller_runtime_reconcile_time_seconds":
				histogram("reconcile_seconds", metric)
			case "workqueue_queue_duration_seconds":
				histogram("queue_seconds", metric)
			case "rest_client_requests_total":
				fmt.Fprintf(writer, "%sapi_requests_total{kind=%q,verb=%q} %g\n", prefix, label("code"), verbs[label("method")],
					metric.GetCounter().GetValue())
			}
		}
	}
}

func main() {
	flags := flag.NewFlagSet("controller", flag.ExitOnError)
	namespace := flags.String("namespace", "", "namespace to watch")
	port := flags.Int("admin-port", 8081, "port of /readyz and /metrics")
	concurrency := flags.Int("concurrency", 16, "reconciles at the same time")
	flags.String("lease-namespace", "", "not used")
	flags.String("lease-name", "", "not used")
	if len(os.Args) < 2 || flags.Parse(os.Args[2:]) != nil {
		os.Exit(2)
	}
	ctrl.SetLogger(zap.New())
	scheme := runtime.NewScheme()
	must(clientgoscheme.AddToScheme(scheme))
	scheme.AddKnownTypes(group, &OrdersService{}, &OrdersServiceList{})
	metav1.AddToGroupVersion(scheme, group)
	config := ctrl.GetConfigOrDie()
	// The client's own limit would be what is measured.
	config.QPS, config.Burst = 1000, 2000
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{*namespace: {}}},
		Metrics: server.Options{BindAddress: "0"},
	})
	must(err)
	var applied *sync.Map
	switch writes := os.Getenv("TWIN_WRITES"); writes {
	case "", "update":
	case "apply":
		applied = &sync.Map{}
	default:
		must(fmt.Errorf("TWIN_WRITES=%q: write update or apply", writes))
	}
	must(ctrl.NewControllerManagedBy(manager).For(&OrdersService{}).Owns(&appsv1.Deployment{}).Owns(&corev1.Service{}).
		Owns(&networkingv1.Ingress{}).Owns(&corev1.ServiceAccount{}).Owns(&networkingv1.NetworkPolicy{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: *concurrency}).
		Complete(&reconciler{manager.GetClient(), scheme, applied}))
	ended := ctrl.SetupSignalHandler()
	ready := healthz.Checker(func(request *http.Request) error {
		bounded, cancel := context.WithTimeout(request.Context(), 100*time.Millisecond)
		defer cancel()
		if !manager.GetCache().WaitForCacheSync(bounded) {
			return fmt.Errorf("the caches are not filled")
		}
		return nil
	})
	mux := http.NewServeMux()
	mux.Handle("/readyz", healthz.CheckHandler{Checker: ready})
	mux.HandleFunc("/metrics", page)
	go func() { must(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), mux)) }()
	must(manager.Start(ended))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "twin:", err)
		os.Exit(1)
	}
}
