// cuBLAS and cuRAND, as far as opening a device of candle asks for them: handles that compute nothing.

static char handle;

int cublasCreate_v2(void **to) { return *to = &handle, 0; }
int cublasSetStream_v2(void *blas, void *stream) { return 0; }
int cublasDestroy_v2(void *blas) { return 0; }
// Not supported: candle's own products are not what is tested.
int cublasDgemmStridedBatched(void) { return 15; }
int cublasGemmStridedBatchedEx(void) { return 15; }

int curandCreateGenerator(void **to, int kind) { return *to = &handle, 0; }
int curandSetStream(void *generator, void *stream) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) { return 0; }
int curandDestroyGenerator(void *generator) { return 0; }
