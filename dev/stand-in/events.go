package main

import (
	"context"
	"encoding/json"
	"log"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type ticket struct {
	ID      string  `json:"id"`
	Version int     `json:"version"`
	Title   string  `json:"title"`
	Price   float64 `json:"price"`
	UserID  string  `json:"userId"`
	// The order that holds it; not a part of the event.
	OrderID string `json:"orderId,omitempty"`
}

type order struct {
	ID        string `json:"id"`
	Version   int    `json:"version"`
	Status    string `json:"status"`
	UserID    string `json:"userId"`
	PaymentID string `json:"paymentId"`
	Ticket    struct {
		ID    string  `json:"id"`
		Price float64 `json:"price"`
	} `json:"ticket"`
}

// events is what was heard, from the beginning of the stream on: whoever starts again hears it again.
type events struct {
	stream  jetstream.JetStream
	mutex   sync.Mutex
	tickets map[string]*ticket
	orders  map[string]*order
}

func listen(ended context.Context, url, name string) *events {
	connection, err := nats.Connect(url, nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	stream, err := jetstream.New(connection)
	if err != nil {
		log.Fatal(err)
	}
	heard := &events{stream: stream, tickets: map[string]*ticket{}, orders: map[string]*order{}}
	go func() {
		// The orders service makes the stream when it starts.
		for {
			err := heard.consume(ended)
			if err == nil {
				return
			}
			log.Printf("no events yet: %v", err)
			select {
			case <-time.After(time.Second):
			case <-ended.Done():
				return
			}
		}
	}()
	return heard
}

func (heard *events) consume(ended context.Context) error {
	name, err := heard.stream.StreamNameBySubject(ended, "order:created")
	if err != nil {
		return err
	}
	consumer, err := heard.stream.OrderedConsumer(ended, name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	consuming, err := consumer.Consume(func(message jetstream.Msg) { heard.hear(message.Subject(), message.Data()) })
	if err != nil {
		return err
	}
	<-ended.Done()
	consuming.Stop()
	return nil
}

func (heard *events) hear(subject string, data []byte) {
	log.Printf("%s %s", subject, data)
	heard.mutex.Lock()
	defer heard.mutex.Unlock()
	switch subject {
	case "ticket:created":
		made := ticket{}
		if json.Unmarshal(data, &made) == nil {
			heard.tickets[made.ID] = &made
		}
	case "order:created", "order:cancelled", "order:completed":
		told := order{}
		if json.Unmarshal(data, &told) != nil {
			return
		}
		known := heard.orders[told.ID]
		switch subject {
		case "order:created":
			heard.orders[told.ID] = &told
		case "order:cancelled":
			if known != nil {
				known.Status = "cancelled"
			}
		case "order:completed":
			if known != nil {
				known.Status, known.PaymentID = "complete", told.PaymentID
			}
		}
		if about := heard.tickets[told.Ticket.ID]; about != nil {
			about.OrderID = told.ID
			if subject == "order:cancelled" {
				about.OrderID = ""
			}
		}
	}
}

func (heard *events) publish(context context.Context, subject string, event any) error {
	data, err := json.Marshal(event)
	if err != nil {
		return err
	}
	_, err = heard.stream.Publish(context, subject, data)
	return err
}

func find[T any](heard *events, all map[string]*T, id string) (T, bool) {
	heard.mutex.Lock()
	defer heard.mutex.Unlock()
	if found := all[id]; found != nil {
		return *found, true
	}
	var none T
	return none, false
}
