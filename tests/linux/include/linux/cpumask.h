/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef EBB_TESTS_LINUX_CPUMASK_H
#define EBB_TESTS_LINUX_CPUMASK_H

extern int shim_cpus;

#define for_each_online_cpu(cpu)  for ((cpu) = 0; (cpu) < shim_cpus; (cpu)++)
#define per_cpu_ptr(pointer, cpu) (&(pointer)[cpu])

#endif
