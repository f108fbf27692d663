/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Memory registered with an InfiniBand device, real or soft (rdma_rxe): one that
 * sends to itself. tests/vm/rdma.sh runs this in a guest that has one.
 */
#include "harness.h"

#if __has_include(<infiniband/verbs.h>) && !defined(CONFORMANCE_STATIC)
#include <dlfcn.h>
#include <infiniband/verbs.h>
#undef ibv_reg_mr

#define SIZE (64 * PAGE)

static struct {
	struct ibv_device **(*get_device_list)(int *);
	struct ibv_context *(*open_device)(struct ibv_device *);
	struct ibv_pd *(*alloc_pd)(struct ibv_context *);
	struct ibv_mr *(*reg_mr)(struct ibv_pd *, void *, size_t, int);
	struct ibv_cq *(*create_cq)(struct ibv_context *, int, void *, struct ibv_comp_channel *, int);
	struct ibv_qp *(*create_qp)(struct ibv_pd *, struct ibv_qp_init_attr *);
	int (*modify_qp)(struct ibv_qp *, struct ibv_qp_attr *, int);
	int (*query_gid)(struct ibv_context *, uint8_t, int, union ibv_gid *);
} verbs;

struct device {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *from, *to;
};

static void load(void)
{
	void *library = dlopen("libibverbs.so.1", RTLD_NOW);

	if (!library)
		skip_case("no libibverbs");
#define LOAD(name) EXPECT((*(void **)&verbs.name = dlsym(library, "ibv_" #name)) != NULL)
	LOAD(get_device_list);
	LOAD(open_device);
	LOAD(alloc_pd);
	LOAD(reg_mr);
	LOAD(create_cq);
	LOAD(create_qp);
	LOAD(modify_qp);
	LOAD(query_gid);
}

static void connect_to(struct device *d, struct ibv_qp *qp, struct ibv_qp *other)
{
	const uint8_t none[16] = { 0 };
	union ibv_gid gid;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_LOCAL_WRITE };
	int index = -1;

	for (int i = 0; i < 16; i++)
		if (!verbs.query_gid(d->context, 1, i, &gid) && memcmp(gid.raw, none, 16))
			index = i;
	if (index < 0)
		skip_case("the device has no address");
	EXPECT_EQ(verbs.query_gid(d->context, 1, index, &gid), 0);
	EXPECT_EQ(verbs.modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), 0);
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024,
		.dest_qp_num = other->qp_num, .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
		.ah_attr = { .is_global = 1, .port_num = 1,
			     .grh = { .dgid = gid, .sgid_index = index, .hop_limit = 1 } } };
	EXPECT_EQ(verbs.modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				  IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER), 0);
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .timeout = 18, .retry_cnt = 7,
		.rnr_retry = 7, .max_rd_atomic = 1 };
	EXPECT_EQ(verbs.modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				  IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC), 0);
}

static void open_device(struct device *d)
{
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1 } };
	struct ibv_device **devices;
	int count = 0;

	load();
	devices = verbs.get_device_list(&count);
	if (!devices || !count)
		skip_case("no InfiniBand device");
	d->context = verbs.open_device(devices[0]);
	EXPECT(d->context != NULL);
	EXPECT((d->pd = verbs.alloc_pd(d->context)) != NULL);
	EXPECT((d->cq = verbs.create_cq(d->context, 16, NULL, NULL, 0)) != NULL);
	init.send_cq = init.recv_cq = d->cq;
	EXPECT((d->from = verbs.create_qp(d->pd, &init)) != NULL);
	EXPECT((d->to = verbs.create_qp(d->pd, &init)) != NULL);
	connect_to(d, d->from, d->to);
	connect_to(d, d->to, d->from);
}

static struct ibv_mr *registered(struct device *d, void *p)
{
	struct ibv_mr *mr = verbs.reg_mr(d->pd, p, SIZE,
		IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);

	EXPECT(mr != NULL);
	return mr;
}

/* The device reads or writes one piece of memory from or to another. */
static void transfer(struct device *d, enum ibv_wr_opcode how, struct ibv_mr *local, struct ibv_mr *remote)
{
	struct ibv_sge piece = { (uintptr_t)local->addr, SIZE, local->lkey };
	struct ibv_send_wr *bad, request = { .sg_list = &piece, .num_sge = 1, .opcode = how,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { (uintptr_t)remote->addr, remote->rkey } };
	struct ibv_wc done;
	int n;

	EXPECT_EQ(ibv_post_send(d->from, &request, &bad), 0);
	while (!(n = ibv_poll_cq(d->cq, 1, &done)))
		usleep(100);
	EXPECT_EQ(n, 1);
	EXPECT_EQ(done.status, IBV_WC_SUCCESS);
}

static void both_have_it(int registered_first)
{
	struct peer p = spawn();
	char *shared = anonymous(SIZE), *other = anonymous(SIZE);
	struct ibv_mr *here = NULL, *there;
	struct device d;
	long apid, addr;

	setenv("XPMEM_WAIT", "0.1", 1);
	open_device(&d);
	fill(shared, SIZE, 1);
	fill(other, SIZE, 2);
	there = registered(&d, other);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	if (registered_first)
		here = registered(&d, shared);
	addr = r_attach(&p, apid, (long)shared, SIZE);
	EXPECT(addr != -1);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	if (!here)
		here = registered(&d, shared);
	/* What the device brings, the peer has. */
	transfer(&d, IBV_WR_RDMA_READ, here, there);
	EXPECT_EQ(verify((long)shared, SIZE, 2), 0);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 2), 0);
	/* What the peer writes, the device takes. */
	EXPECT_EQ(r_fill(&p, addr, SIZE, 3), 0);
	transfer(&d, IBV_WR_RDMA_WRITE, here, there);
	EXPECT_EQ(verify((long)other, SIZE, 3), 0);
	/* And as the device sees it from afar. */
	fill(other, SIZE, 4);
	transfer(&d, IBV_WR_RDMA_WRITE, there, here);
	EXPECT_EQ(verify((long)shared, SIZE, 4), 0);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 4), 0);
	quit(&p);
}

CASE(rdma_registered_first, "a buffer that is registered with InfiniBand first and sent locally second")
{
	both_have_it(1);
}

CASE(rdma_shared_first, "a buffer that is sent locally first and registered with InfiniBand second")
{
	both_have_it(0);
}
#endif
