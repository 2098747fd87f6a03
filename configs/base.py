"""Every field of a run, with its default; other configs are deltas on it.

A field can be overridden on the command line: `--config.model.top_k=50`, or
`--config.data.max_padding=None` where a field may have none. The
argument of a config file sets the commonest ones, for instance
`--config=configs/taobao.py:model=twin,dim=64`.
"""

import ml_collections
from ml_collections import config_dict


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the locked base configuration; `arg` as in `apply_arg`."""
  config = ml_collections.ConfigDict()
  config.seed = 1  # of initial values, order, negatives
  config.data = _data()
  config.model = _model()
  config.optim = _optim()
  config.train = _train()
  config.eval = _eval()
  config.checkpoint = _checkpoint()
  config.runtime = _runtime()
  config.lock()
  return apply_arg(config, arg)


def _data() -> ml_collections.ConfigDict:
  data = ml_collections.ConfigDict()
  data.name = 'complete_journey'  # dataset, a name in logs/builders
  data.input = config_dict.placeholder(str)  # raw log: file, folder, pattern
  data.data_dir = '~/.cache/dare_jax'  # where prepared data lies
  data.max_malformed_share = 0.001  # of a log's rows; above: an error
  data.sort_by_time = True  # False keeps the file's order in a user
  data.min_item_count = 1  # rarer items become the unknown item
  # Further fields of a log that offers some: of complete_journey brand,
  # manufacturer, department, product_category, package_size and price; of
  # movielens_1m genres, a set. Each helps where an item is too rare for a
  # vector of its own to be learned.
  data.fields = ()  # each has attention and representation tables
  # Fields of a user that a log offers, for the head: where who it is says
  # something that the history does not. Of complete_journey age, income,
  # home_ownership, marital_status, household_size, household_comp, kids_count
  # and household, which is the user itself.
  data.user_fields = ()  # known for a user, so that nobody need give them
  # Vectors of items from their text, images or graph: NAME.npy beside
  # NAME.items.npy, or Parquet with item and vector. Worth it where many
  # targets are items that training sees rarely or never.
  data.item_vectors = config_dict.placeholder(str)  # None: none

  # How moments become training, validation and test rows.
  data.split = 'leave_last_session'  # or leave_last, by_time
  data.min_events = 210  # users with fewer behaviors have no targets
  data.min_history = 50  # behaviors before a target (all but leave_last)
  data.max_train_moments = config_dict.placeholder(int)  # a user; None: all
  data.train_positions = (3, 93, 5)  # leave_last: first, last, step from end
  # by_time: a date, '2024-05-01' or any in ISO 8601, or a number as in the log.
  data.train_from = config_dict.placeholder(object)  # None: all before
  data.val_from = config_dict.placeholder(object)  # from when to validate
  data.test_from = config_dict.placeholder(object)  # from when to test

  # What a row holds.
  data.history_length = 200  # behaviors seen from a target
  # Of a batch's history slots; batches then have one of a few lengths.
  data.max_padding = config_dict.placeholder(float)  # None: one length
  data.num_negatives = 2  # sampled for each positive
  data.group_candidates = True  # False: one target a row, shuffled singly
  # More negatives for little: positives of other moments of the training batch,
  # for the loss that optim.softmax_weight turns on. docs/losses.md.
  data.in_batch_negatives = 0  # for each positive
  data.exclude = 'user_log'  # never a negative: or positive_only, none
  data.fresh_negatives = False  # True: drawn anew each epoch
  data.reshuffle = True  # False: the same order in every epoch
  # Share of the ids in training batches that become unknown. Ids that training
  # never reads are the unknown id; without one, all keep their rows.
  data.unknown_rate = 0.001  # 0: no unknown id
  data.prefetch = 4  # batches that wait for the step
  data.columns = _columns()
  _add_synthetic(data)
  return data


def _columns() -> ml_collections.ConfigDict:
  """csv_log: the columns of a CSV or Parquet log."""
  columns = ml_collections.ConfigDict()
  columns.order = config_dict.placeholder(tuple)  # CSV without header: names
  # Between the fields of a CSV log: ';', 'tab', '::' and the like.
  columns.separator = config_dict.placeholder(str)  # None: where plain, found
  columns.user = 'user_id'  # who
  columns.item = 'item_id'  # what
  columns.time = 'timestamp'  # a number, or a date in ISO 8601
  columns.category = 'category_id'  # of which kind
  columns.fields = ()  # further categorical fields of a behavior
  columns.context = ()  # categorical fields of a moment, for the head
  # As context, but of a user: what the log last has is known from then on.
  # The column of the user itself: a vector for each, where the same come back.
  columns.user_fields = ()  # none
  # Of these, those with numbers, such as a price: near ones share a value.
  columns.numbers = ()  # ranges, two to a doubling
  # Of the further fields, those with several values, such as genres or tags:
  # behaviors that share some are alike. A list column of Parquet, or text.
  columns.sets = ()  # none
  columns.set_separator = '|'  # between the members of a set in text
  columns.label = config_dict.placeholder(str)  # 0/1: rows are impressions
  columns.missing = ()  # texts that stand for a missing value, such as NULL
  return columns


def _add_synthetic(data: ml_collections.ConfigDict) -> None:
  """synthetic_lifelong: see configs/synthetic.py for their meaning."""
  data.num_users = 2_000  # histories
  data.num_items = 20_000  # the catalogue
  data.num_categories = 200  # of items
  data.events_per_user = 400  # mean
  data.max_events = 4_000  # longest history
  data.events_sigma = 0.5  # spread of lengths, of their logarithm
  data.num_partners = 3  # categories that a category makes likely
  data.self_share = 0.5  # of caused events: in the cause's own category
  data.recency_scale = 60.0  # behaviors until relevance falls by 1/e
  data.relevance = 0.7  # share of events caused by an earlier one
  data.item_exponent = 1.1  # Zipf, items in a category
  data.category_exponent = 0.8  # Zipf, categories
  data.synthetic_seed = 0  # of the log, whatever the run's seed


def _model() -> ml_collections.ConfigDict:
  model = ml_collections.ConfigDict()
  model.name = 'dare'  # preset: see dare_jax/models/presets.py
  model.plan = config_dict.placeholder(str)  # None: the preset's
  model.scorer = config_dict.placeholder(str)  # None: the preset's
  model.search = config_dict.placeholder(str)  # None: the preset's
  model.aggregation = config_dict.placeholder(str)  # None: the preset's
  model.target_aware = config_dict.placeholder(bool)  # None: the preset's
  model.top_k = 20  # behaviors kept by the search
  # Several weigh what was found each in its own way: helps users of many
  # interests, where one softmax follows only the strongest. docs/losses.md.
  model.interest_heads = 1  # of attention, the aggregation's own included
  model.attention_dim = 16  # of each field
  model.representation_dim = 16  # of each field
  # Of each further field, in both roles. A step costs as much as all widths
  # together, and most further fields have few values to tell apart.
  model.further_dim = config_dict.placeholder(int)  # None: the preset's
  model.attention_dims = ml_collections.ConfigDict()  # by field, overrides
  model.attention_dims.item = config_dict.placeholder(int)  # None: as above
  model.attention_dims.category = config_dict.placeholder(int)  # same
  model.attention_dims.time = config_dict.placeholder(int)  # same
  model.attention_dims.item_vector = config_dict.placeholder(int)  # same
  model.representation_dims = ml_collections.ConfigDict()  # by field
  model.representation_dims.item = config_dict.placeholder(int)  # same
  model.representation_dims.category = config_dict.placeholder(int)  # same
  model.representation_dims.time = config_dict.placeholder(int)  # same
  model.representation_dims.item_vector = config_dict.placeholder(int)  # same
  model.vectors_in = ('attention', 'representation')  # of data.item_vectors
  model.tune_vectors = False  # True: they are trained on, as other tables
  # Fields that tell where a target's equals a behavior's, item,category say:
  # where people come back to the same things. See docs/parts.md.
  model.match_fields = ()  # the preset's; or all, or none
  # Real time beside the order of behaviors: how long ago each was (gap), the
  # weekday and the hour (UTC) of the moment. Where habits have a period, or
  # where some users come daily and others monthly. See docs/parts.md.
  model.real_time = ()  # none, or gap,weekday,hour
  # The heads see the mean of all behaviors, too: helps for targets unlike
  # anything in the history. See docs/parts.md.
  model.history_mean = config_dict.placeholder(bool)  # None: the preset's
  model.context_dim = 8  # of each context field
  model.exact_positions = 200  # farther behaviors share log-spaced ranges
  model.hidden = (200, 80)  # main head
  model.aux_hidden = (200,)  # auxiliary head
  # The auxiliary head sees attention over the whole history, in training only.
  model.aux_head = config_dict.placeholder(bool)  # None: the preset's
  model.use_time = config_dict.placeholder(bool)  # None: the preset's
  model.only_product = False  # the head sees target * interest alone
  model.projection_init = 'lecun'  # or identity, orthogonal, official
  model.hash_bits = config_dict.placeholder(int)  # None: the preset's
  model.hash_width = 3  # bits of a hash bucket's signature
  model.search_dim = 16  # of sim_soft's own search space
  model.cluster_size = 10  # twin_v2: most members of a cluster
  model.cluster_every_steps = 150  # twin_v2: steps between two clusterings
  model.attention_init = 0.5  # standard deviation of attention tables
  model.representation_init = 0.1  # of representation and shared tables
  model.two_outputs = False  # published: click and no click
  model.batch_statistics = False  # published: in evaluation, too
  # Share of the running statistics that a step keeps; published: 0.9.
  model.norm_momentum = config_dict.placeholder(float)  # None: by rows
  # Of vectors and activations; losses, softmax and batch statistics stay wide.
  model.compute_dtype = 'float32'  # or bfloat16
  model.keep_padding = False  # published: padding fills up the top k
  model.published_search = False  # published: hard search counts time twice
  return model


def _optim() -> ml_collections.ConfigDict:
  optim = ml_collections.ConfigDict()
  optim.learning_rate = 0.01  # of Adam, at the first step
  optim.schedule = 'constant'  # or linear: to 0 at the end of the run
  # lazy_adam, row_adagrad, sgd: rows of the batch; adam, as published: all.
  optim.tables = 'lazy_adam'  # the optimizer of tables
  optim.table_learning_rate = config_dict.placeholder(float)  # None: the same
  optim.table_weight_decay = 0.0  # decoupled, of rows that move
  optim.by_table = ()  # (pattern of names, learning rate, weight decay), ..
  optim.row_sparse_from = 4096  # rows; smaller tables are on each device whole
  optim.unique_rows = 'host'  # or device: where a batch's rows are found
  optim.table_dtype = 'float32'  # or bfloat16, rounded stochastically
  # apart: each table and slot by itself. joined: those of a field row by row in
  # one array. In memory only: checkpoints fit either.
  optim.table_layout = config_dict.placeholder(str)  # None: joined on TPUs
  optim.aux_weight = 1.0  # of the auxiliary loss
  optim.pointwise_weight = 1.0  # of the loss of each target by itself
  # Each positive against the negatives of its moment: helps where order counts
  # more than probabilities do. docs/losses.md.
  optim.softmax_weight = 0.0  # of the loss among the candidates of a moment
  optim.l2 = 1e-6  # on dense kernels and projections, sum of squares
  optim.balance_gradients = False  # attention's as long as representation's
  optim.l2_on_norms = False  # published: l2 on norm scales and slopes, too
  optim.loss_epsilon = 0.0  # published: 1e-8, added to probabilities
  optim.published_init = False  # published: all but biases N(0, 0.01^2)
  return optim


def _train() -> ml_collections.ConfigDict:
  train = ml_collections.ConfigDict()
  train.batch_size = 683  # moments a step
  # A step takes batch_size / moments_per_window windows, rounded, at least one.
  # Some are not full: a step may train on a little less than batch_size.
  train.moments_per_window = 1  # of one user, that share a window of behaviors
  train.epochs = 2.0  # run length, parts of an epoch too
  train.steps = config_dict.placeholder(int)  # replaces epochs when set
  train.log_every_steps = 50  # running metrics
  # Of attention and representation, of tables that both read: docs/analysis.md.
  train.observe_gradients = False  # True: their lengths and angles are kept
  # The workdir of a run to go on from, of an older log perhaps: ids that it
  # knew keep their rows. A run that resumes does not look there again.
  train.init_from = config_dict.placeholder(str)  # None: fresh
  return train


def _eval() -> ml_collections.ConfigDict:
  evaluation = ml_collections.ConfigDict()
  evaluation.batch_size = 1024  # moments
  evaluation.every_steps = 150  # 0: at the end only
  evaluation.drop_last = False  # published: leave out the last partial batch
  return evaluation


def _checkpoint() -> ml_collections.ConfigDict:
  checkpoint = ml_collections.ConfigDict()
  checkpoint.every_steps = 500  # besides those at evaluations; 0: none
  checkpoint.keep_last = 2  # of the newest; one more of the best
  return checkpoint


def _runtime() -> ml_collections.ConfigDict:
  runtime = ml_collections.ConfigDict()
  runtime.compilation_cache = '~/.cache/dare_jax/compiled'  # '': none
  runtime.tune_malloc = True  # keep large CPU buffers mapped (glibc)
  return runtime


_SHORTHAND = {
  'model': ('model.name',),
  'dim': ('model.attention_dim', 'model.representation_dim'),
  'attention_dim': ('model.attention_dim',),
  'representation_dim': ('model.representation_dim',),
  'seed': ('seed',),
  'steps': ('train.steps',),
  'length': ('data.history_length',),
}


def apply_arg(
  config: ml_collections.ConfigDict, arg: str
) -> ml_collections.ConfigDict:
  """Sets fields from a config argument such as `model=twin,dim=64`.

  Raises:
    ValueError: an unknown key or a malformed pair.
  """
  for pair in filter(None, arg.split(',')):
    key, _, value = pair.partition('=')
    is_name = key == 'model'
    if key not in _SHORTHAND or not (is_name or value.isdigit()) or not value:
      raise ValueError(
        f'config argument {pair!r}: expected model=NAME, or key=NUMBER with a'
        f' key among {", ".join(key for key in _SHORTHAND if key != "model")}.'
      )
    for field in _SHORTHAND[key]:
      config.update_from_flattened_dict(
        {field: value if is_name else int(value)}
      )
  return config
