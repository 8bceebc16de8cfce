# The study of real questions, for docs/results.md: `make productqa AGILE_DATA=FOLDER`, about 18 hours alone on two CPU
# cores. Files are its goals, so the same command goes on: trainings resume, an evaluation that was stopped begins anew.
# MODELS/qwen05b and MODELS/smollm2 are made by the commands that configs/productqa.yaml and
# configs/sweeps/productqa_ablations.yaml begin with.
#
# The main run and what is measured of its best checkpoint come first: its own queries, and its reading of one shared
# memory (`own_answer`). Then ablations, prices and the other tasks.

RUNS ?= runs
MODELS ?= models
STUDY := $(RUNS)/productqa_study
MAIN := $(RUNS)/productqa
SMALL := $(RUNS)/productqa_ablations
PRICES := 0.1 0.2 0.3 0.4 0.5
COMMA := ,
LIST := [$(subst $() ,$(COMMA),$(PRICES))]
AGILE := $(BIN)/agile-ray
QUESTIONS := env.data=$(DATA)/productqa
QWEN := model.path=$(MODELS)/qwen05b

.PHONY: productqa
.DELETE_ON_ERROR:
$(MAIN)/report.json: | $(STAMP)
$(STUDY)/own_answer.json $(STUDY)/own_answer_small.json $(STUDY)/table.txt: | $(STUDY)

$(STUDY):
	mkdir -p $@

productqa: $(STUDY)/table.txt $(STUDY)/own_answer.json $(STUDY)/own_answer_small.json \
	$(RUNS)/medmcqa/report.json $(RUNS)/hotpotqa/report.json

$(MAIN)/report.json:
	$(AGILE) train productqa $(QUESTIONS) $(QWEN) run.folder=$(RUNS)

$(SMALL)/sweep.json: $(MAIN)/report.json
	$(AGILE) sweep productqa_ablations $(QUESTIONS) model.path=$(MODELS)/smollm2 run.folder=$(RUNS)

$(RUNS)/productqa_prices/report.json: $(MAIN)/report.json
	$(AGILE) train productqa $(QUESTIONS) run.folder=$(RUNS) run.name=productqa_prices "env.advice_cost=$(LIST)" \
		imitation.sessions=0 imitation.search_rows=0 model.path=$(MAIN)/checkpoints/best loop.iterations=4

$(STUDY)/own_answer.json: $(MAIN)/report.json
	$(AGILE) evaluate productqa --policy own_answer --checkpoint $(MAIN)/checkpoints/best --output $@ \
		--predictions $(STUDY)/own_answer $(QUESTIONS) $(QWEN)

$(STUDY)/own_answer_small.json: $(SMALL)/sweep.json
	$(AGILE) evaluate productqa --policy own_answer --checkpoint $(SMALL)/whole/checkpoints/best --output $@ \
		--predictions $(STUDY)/own_answer_small $(QUESTIONS) model.path=$(MODELS)/smollm2

$(STUDY)/table.txt: $(MAIN)/report.json $(SMALL)/sweep.json $(RUNS)/productqa_prices/report.json
	$(AGILE) table productqa $(MAIN) $(RUNS)/productqa_prices $$(dirname $(SMALL)/*/report.json) \
		--output $(STUDY)/table.json > $@

$(RUNS)/medmcqa/report.json $(RUNS)/hotpotqa/report.json: $(RUNS)/%/report.json: $(MAIN)/report.json
	$(AGILE) train $* env.data=$(DATA)/$* model.path=$(MODELS)/smollm2 run.folder=$(RUNS)

# The same small model with plain sessions and with conversations by its chat template, after the same imitation on
# real questions and without PPO: `make chat AGILE_DATA=FOLDER`. How long it takes is not measured.
CHAT_RUNS := $(RUNS)/chat
.PHONY: chat
chat: $(CHAT_RUNS)/plain/report.json $(CHAT_RUNS)/conversation/report.json

$(CHAT_RUNS)/plain/report.json: FORM := model.path=$(MODELS)/smollm2 agent.session_tokens=512
$(CHAT_RUNS)/conversation/report.json: FORM := model.path=$(MODELS)/smollm2-chat agent.session_tokens=640
$(CHAT_RUNS)/plain/report.json $(CHAT_RUNS)/conversation/report.json: $(CHAT_RUNS)/%/report.json: | $(STAMP)
	$(AGILE) train productqa $(QUESTIONS) run.folder=$(CHAT_RUNS) run.name=$* $(FORM) \
		imitation.search_rows=0 imitation.sessions=500 imitation.batch=4 imitation.learning_rate=2.0e-4 \
		learner.lora_rank=null learner.micro_batch_tokens=2048 \
		loop.iterations=0 evaluate.sessions=150 evaluate.validation_sessions=30
