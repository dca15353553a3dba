"""What `pytest` leaves out for time, as others of its kind run. `pytest --all` runs it too, and .ci/run a part of it,
picked by the commit."""

from collections import Counter
from collections.abc import Iterable

import pytest

# By file and test, what `pytest` runs of it: these parameters, every N-th, or (nothing).
KEPT: dict[str, dict[str, tuple[str, ...] | int]] = {
    "ablations/test_rows.py": {"test_every_row_trains_and_is_evaluated": ("mun-table-2", "pmt-table-5")},
    "backends/test_kernels.py": {
        "test_a_kernel_computes_what_the_operators_do": 3,
        "test_a_kernel_computes_where_it_is_installed_and_nowhere_else": 3,
        "test_a_loss_is_computed_with_what_it_holds_now": ("operators",),
        "test_a_product_keeps_no_memory": (),
    },
    "backends/test_mindspores_layers.py": {"test_a_graph_computes_what_mindspore_computes": 2},
    "backends/test_products.py": {"test_a_convolution_is_the_sum_of_products": ("SSE",)},
    "backends/test_reading.py": {"test_all_that_runs_is_read": 3},
    "device/test_called.py": {"test_the_page_has_what_a_step_calls": ()},
    "device/test_cuda_build.py": {"test_ten_processes_at_once_compile_one_launcher_and_have_whole_files": ()},
    "device/test_cuda_contract.py": {
        "test_a_layer_of_ones_own_between_resnet_and_gem_gets_channels_first": (),
        "test_a_part_in_evaluation_mode_within_a_training": ("CrossModalityLearner-['bn']", "Block-['']"),
        "test_tensors_are_joined_and_split_as_by_mindspore": (),
    },
    "device/test_cuda_kernels.py": {
        "test_a_vit_whose_rows_no_registers_hold": (),
        "test_nvidias_compiler_takes_the_kernels": (),
    },
    "device/test_edits.py": {
        "test_an_edit_trains_or_a_line_says_why_not": ("ascend",),
        "test_a_kernel_passes_over_no_edit": (),
        "test_a_model_of_ones_own_trains_by_cuda_as_by_eager": (),
    },
    "device/test_host.py": {
        "test_it_is_set_unless_the_user_sets_it_or_says_no": (),
        "test_each_switch_changes_nothing_else": (),
        "test_a_process_with_one_core_has_one_thread_for_graphs": ("GPU",),
        "test_the_threads_of_a_compiled_graph_keep_to_two_cores_of_a_small_host": (),
        "test_one_thread_launches_all_operators_on_one_stream": (),
    },
    "device/test_ladder.py": {"test_the_device_computes_what_pytorch_computes_on_the_cpu": ()},
    "device/test_launches.py": {
        "test_a_compiled_step_is_counted_at_its_batch": (),
        "test_a_compiled_step_of_an_ascend_is_counted": (),
        "test_a_resnets_step_with_recompute_keeps_less": (),
    },
    "device/test_mindspores_layers.py": {
        "test_a_graph_of_an_ascend_computes_what_mindspore_computes": ("evaluation",),
        "test_a_graph_of_a_gpu_joins_what_mindspore_joins": (),
    },
    "device/test_other_cuda.py": {
        "test_pytorch_does_not_ask_the_stand_ins_driver": (),
        "test_libraries_of_another_cuda_are_not_taken_for_mindspores": (),
    },
    "device/test_planted.py": {
        "test_the_devices_column_notices": ("worker-momentum", "ascend_worker-momentum"),
        "test_no_other_column_notices": ("momentum",),
    },
    "device/test_planted_in_cuda.py": {
        "test_an_error_in_the_kernels_is_noticed": ("a sum without a barrier", "a momentum that is not Nesterov's")
    },
    "device/test_stand_in.py": {"test_a_case_that_hangs_or_ends_its_process_fails_alone": ()},
    "device/test_stand_in_commands.py": {
        "test_a_checkpoint_is_evaluated": ("pmt",),
        "test_a_checkpoint_is_evaluated_on_corrupted_pictures": (),
        "test_features_are_extracted": ("pmt",),
        "test_gradcam_is_drawn": ("pmt",),
        "test_a_checkpoint_is_exported_beside_a_gpu": (),
        "test_an_interrupted_training_goes_on": (),
        "test_the_drivers_translation_is_announced_until_it_has_happened": (),
    },
    "device/test_stand_in_ladder.py": {
        "test_a_backend_with_cuda_kernels_computes_what_pytorch_computes": (
            *("2 Block with dropout and drop path", "2 Bottleneck, projected", "2 GeM"),
            *("4 PMT small, gradients with dropout", "5 PMT stage 1, six updates"),
        ),
        "test_a_graph_of_a_gpu_computes_what_pytorch_computes": ("2 Attention", "3 IdentityLoss"),
        "test_a_graph_of_an_ascend_computes_what_pytorch_computes": (
            *("2 Block with dropout and drop path", "2 IntraModalityLearner, 9x9 first", "2 NonLocal, width 12"),
            *("3 IdentityLoss", "5 PMT stage 1, six updates"),
        ),
        "test_operators_one_by_one_compute_what_pytorch_computes": 12,
    },
    "device/test_stand_in_training.py": {
        "test_a_method_trains_by_default": ("pmt",),
        "test_a_step_hardly_waits": ("pmt",),
        "test_one_thread_launches_all_operators_on_one_stream": ("pmt",),
        "test_the_page_has_what_the_steps_call": ("pmt",),
        "test_what_else_can_be_compiled_takes_steps": (),
        "test_what_is_recomputed_is_compiled_with_cuda_kernels": (),
        "test_a_vit_of_many_tokens_trains": (),
        "test_recomputed_cuda_kernels_give_the_same_bits": (),
        "test_a_method_trains_in_pynative": ("pmt-float32",),
        "test_the_recipe_of_another_data_set_trains": ("pmt/llcm",),
    },
    "device/test_train.py": {"test_each_method_trains_and_is_evaluated": ()},
    "device/test_two_processes.py": {
        "test_two_processes_train_as_one_of_the_cpu_on_the_union_batch": (),
        "test_each_process_asks_for_sums_of_all": (),
        "test_one_of_them_says_that_the_driver_translates": (),
    },
    "edits/test_edits.py": {
        "test_an_edit_trains_or_a_line_says_why_not": ("numba",),
        "test_a_model_of_ones_own_trains_by_numba_as_by_eager": ("Stripes", "Excited"),
        "test_what_is_edited_is_told": ("numba",),
        "test_an_update_by_a_weights_norm_gets_each_weight_by_itself": (),
        "test_frozen_weights_train_in_float16": ("eager",),
    },
    "engine/test_amp.py": {
        "test_the_loss_curve_is_float32s_weights_stay_float32_and_the_scale_is_resumed": (),
        "test_the_copies_in_half_are_the_weights_after_a_step": 2,
    },
    "engine/test_branches.py": {"test_no_step_branches_on_data": ("pmt-1",)},
    "engine/test_faults.py": {
        "test_a_kill_at_any_moment_loses_no_checkpoint_and_resumes_bitwise": ("0",),
        "test_two_runs_into_one_folder_and_pictures_that_vanish": (),
        "test_a_worker_that_is_killed_ends_the_run": (),
    },
    "engine/test_resume.py": {"test_a_run_killed_while_it_writes_resumes_bitwise": ()},
    "engine/test_tensorboard.py": {"test_without_it_no_event_is_written_and_without_the_package_it_is_refused": ()},
    "files/test_kernel_cache.py": {"test_what_is_damaged_is_compiled_anew_and_said": 2},
    "hostile/test_cases.py": {"test_input_that_lies_is_refused_in_one_line": 6},
    "hostile/test_killed.py": {"test_a_killed_command_loses_nothing_and_makes_nothing_wrong": ()},
    "hostile/test_writing.py": {
        "test_a_command_writes_what_it_was_asked_to_and_nothing_else": 3,
        "test_a_full_disk_leaves_what_was_there": 3,
        "test_a_file_of_a_name_that_no_option_gave_is_replaced_only_if_it_is_ours": ("model.onnx",),
    },
    "losses/test_losses.py": {"test_rows_of_any_distance_have_a_finite_gradient": 4},
    "models/test_recompute.py": {
        "test_values_gradients_and_running_averages_are_those_without_it": ("agw-numba", "mun X-eager"),
        "test_what_is_recomputed_is_computed_twice": ("agw",),
        "test_a_batch_norm_that_runs_twice_is_seen": 3,
    },
    "optimizers/test_optimizer.py": {"test_a_sequence_of_sgd_updates_is_that_of_torch": 3},
    "options/test_options.py": {
        "test_an_option_acts_or_is_refused": (
            *("train", "retrieve-index", "check-data", "export", "report-table", "convert", "stand-in"),
        )
    },
    "parity/test_benchmark.py": {
        "test_both_begin_with_the_same_weights_and_go_on_alike": (),
        "test_compiled_pytorch_computes_the_same": (),
    },
    "parity/test_convert_training.py": {"test_training_goes_on_in_the_other_framework_and_back": ()},
    "parity/test_galleries.py": {"test_every_kind_of_search_is_measured": ()},
    "parity/test_ladder.py": {"test_mindspore_computes_what_pytorch_computes": 6},
    "parity/test_ladder_models.py": {
        "test_a_model_computes_what_pytorchs_does": (
            *("4 PMT small", "4 AGW small", "4 MUN small", "4 MUN small, gradients", "4 timm ViT, stride 12"),
        )
    },
    "parity/test_ladder_trainings.py": {
        "test_a_training_goes_as_in_pytorch": (
            *(f"5 schedule of {of}-numba" for of in ("PMT, timm", "MUN, torch.optim")),
            *(f"5 PMT stage 1, {what}-{by}" for what in ("groups", "six updates") for by in ("numba", "graph")),
            *(f"5 MUN, six updates-{by}" for by in ("numba", "eager")),
            "5 PMT stage 2, MindSpore-numba",
        )
    },
    "parity/test_planted_errors.py": {"test_the_ladder_notices": 12},
    "parity/test_planted_kernel_errors.py": {"test_the_kernels_case_fails_in_their_column_alone": 8},
    "parity/test_report.py": {"test_two_processes_print_what_one_does_in_the_same_order": ()},
    "parity/test_torch_commands.py": {"test_both_frameworks_hand_on_what_their_first_weights_were_trained_on": ()},
    "parity/test_torch_step.py": {"test_autocast_keeps_less": 3, "test_the_peak_is_that_of_pytorchs_allocator": 3},
    "search/test_threads.py": {
        "test_ctrl_c_while_waiting_leaves_the_turn_to_others": (),
        "test_a_process_ends_orderly_while_threads_compute": 2,
        "test_pictures_are_read_by_workers_whatever_the_script_starts_processes_by": 2,
        "test_a_training_goes_on_beside_a_search_and_an_evaluation": (),
    },
    "test_ablate.py": {"test_a_table_on_two_data_sets_is_run_on_both_and_on_every_split": ()},
    "test_distributed.py": {
        "test_synchronised_batch_norm_is_that_of_the_union": (),
        "test_two_processes_train_as_one_in_float16": (),
        "test_a_run_whose_processes_are_killed_is_resumed_bitwise": (),
        "test_a_stop_of_one_process_stops_all_after_the_step_and_is_resumed_bitwise": (),
    },
    "test_environment.py": {"test_a_role_that_was_left_over_says_what_it_waits_for_and_ends_at_once": 2},
    "test_export.py": {
        "test_the_files_compute_what_the_checkpoint_does": ("pmt-mindir", "pmt-onnx", "agw-onnx", "mun-onnx"),
        "test_a_wrong_preparation_refuses_the_export": 3,
        "test_a_wrong_graph_does_not_get_its_name": 2,
    },
    "test_gpu.py": {"test_on_a_cpu_no_compiler_is_asked": 3},
    "test_interrupt.py": {
        "test_a_command_that_is_still_starting_ends_without_a_word": 5,
        "test_an_evaluation_that_is_stopped_says_so_in_one_line": 2,
        "test_a_training_stopped_in_its_last_evaluation_is_resumed": (),
        "test_a_page_that_is_stopped_is_not_written": (),
    },
    "test_own_folders.py": {"test_a_person_has_one_name_everywhere": ()},
    "test_python_pages.py": {
        "test_a_loss_a_model_and_a_layer_are_added_as_the_page_says_and_every_command_takes_them": (),
        "test_the_ladder_takes_what_the_page_adds": (),
        "test_the_notebook_runs_and_finds_people_better_than_chance": (),
    },
    "test_retrieve.py": {"test_below_a_threshold_nobody_is_found": 2},
    "test_runtime.py": {
        "test_threads_keep_to_a_core_each_while_batches_are_used_where_there_are_several_and_it_is_wanted": 2,
        "test_only_convolutions_are_capped_and_a_users_own_environment_wins": (),
    },
    "test_train.py": {"test_memory_hardly_grows_with_the_steps": ()},
    "test_wheel.py": {"test_every_command_runs": ()},
}


def mark(items: Iterable[pytest.Item]) -> None:
    """Mark what is left out as `extensive`."""
    numbers: Counter[str] = Counter()  # of a test's parameters so far
    for item in items:
        file, test, parameters = _named(item)
        kept = KEPT.get(file, {}).get(test)
        if kept is not None:
            is_kept = numbers[file + test] % kept == 0 if isinstance(kept, int) else parameters in kept
            numbers[file + test] += 1
            if not is_kept:
                item.add_marker("extensive")


def unknown(items: Iterable[pytest.Item]) -> list[str]:
    """Return what `KEPT` names in the files of all these tests, but none of them is."""
    found: dict[str, dict[str, set[str]]] = {}
    for file, test, parameters in map(_named, items):
        found.setdefault(file, {}).setdefault(test, set()).add(parameters)
    return [
        f"{file}: {test}{f'[{name}]' if name else ''}"
        for file in KEPT.keys() & found.keys()
        for test, kept in KEPT[file].items()
        for name in ("", *(() if isinstance(kept, int) else kept))
        if test not in found[file] or (name and name not in found[file][test])
    ]


def _named(item: pytest.Item) -> tuple[str, str, str]:
    file, _, name = item.nodeid.partition("::")
    test, _, parameters = name.partition("[")
    return file.removeprefix("tests/"), test, parameters.removesuffix("]")
