/* Forward-backward and Viterbi for hllm.hmm, one sequence after the other. Optional: python -m hllm.hmm.build compiles it.

   Arrays lie as in layout.py: element (step, state, block) at (step * K + state) * B + block. A sequence is a run of
   blocks, the first marked in `first`; `filled` holds the rows of each. Rabiner 1989, III. No state is kept. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define AT(a, l, k) ((a)[((l) * K + (k)) * B + b])

/* E: P(x | s) over the largest of its states. Overwrites post (L, K, B) with posteriors, pairs (K, K) with counts.
   Scaled at each row. Returns 0, or 1 where doubles do not suffice. work: B * L + 4 * K doubles. */
int hllm_smooth(int64_t L, int64_t K, int64_t B, const double *E, const double *pi, const double *A,
                const uint8_t *first, const int64_t *filled, double least, int both, double *post, double *pairs,
                double *work, double *logarithm)
{
    double *scale = work, *before = work + B * L, *ahead = before + K, *later = ahead + K, *sums = later + K;
    double total = 0.0;
    memset(pairs, 0, sizeof(double) * K * K);
    for (int64_t b = 0; b < B; b++)
        for (int64_t l = 0; l < filled[b]; l++) {
            double sum = 0.0;
            for (int64_t j = 0; j < K; j++) sums[j] = (l == 0 && first[b]) ? pi[j] : 0.0;
            if (!(l == 0 && first[b]))
                for (int64_t i = 0; i < K; i++)
                    for (int64_t j = 0; j < K; j++) sums[j] += before[i] * A[i * K + j];
            for (int64_t j = 0; j < K; j++) sum += sums[j] *= AT(E, l, j);
            if (!(sum > least)) return 1;
            for (int64_t j = 0; j < K; j++) {
                before[j] = sums[j] / sum;
                if (both) AT(post, l, j) = before[j];
            }
            scale[b * L + l] = sum;
        }
    for (int64_t b = 0; b < B; b++)
        for (int64_t l = 0; l < filled[b]; l++) total += log(scale[b * L + l]);
    *logarithm = total;
    if (!both) return 0;
    for (int64_t b = B - 1; b >= 0; b--) {
        int last = b == B - 1 || first[b + 1];
        for (int64_t l = filled[b] - 1; l >= 0; l--) {
            double sum = 0.0, largest = 0.0;
            if (last && l == filled[b] - 1)
                for (int64_t i = 0; i < K; i++) ahead[i] = 1.0;
            else { /* later: E * ahead of the next row, over its joint probability */
                for (int64_t i = 0; i < K; i++) {
                    double value = 0.0, alpha = AT(post, l, i);
                    for (int64_t j = 0; j < K; j++) {
                        double way = A[i * K + j] * later[j];
                        value += way;
                        pairs[i * K + j] += alpha * way;
                    }
                    ahead[i] = value;
                }
            }
            for (int64_t i = 0; i < K; i++) {
                sum += AT(post, l, i) * ahead[i];
                if (ahead[i] > largest) largest = ahead[i];
            }
            /* sum is 1 but for rounding; a state that was excluded and is wanted shows in the largest */
            if (!(sum > 0.5 && largest < 1.0 / least)) return 1;
            for (int64_t j = 0; j < K; j++) {
                later[j] = AT(E, l, j) * ahead[j] / (scale[b * L + l] * sum);
                AT(post, l, j) *= ahead[j] / sum;
            }
        }
    }
    return 0;
}

/* E: ln P(x | s), A and pi in logarithms, all finite. path (L, B). back: B * L * K bytes' indices; work: 2 * K doubles.
   Of equal ways the lowest state wins. */
void hllm_viterbi(int64_t L, int64_t K, int64_t B, const double *E, const double *pi, const double *A,
                  const uint8_t *first, const int64_t *filled, int64_t *path, int32_t *back, double *work)
{
    double *best = work, *now = work + K;
    for (int64_t b = 0; b < B; b++)
        for (int64_t l = 0; l < filled[b]; l++) {
            int32_t *from = back + (b * L + l) * K;
            if (l == 0 && first[b]) {
                for (int64_t j = 0; j < K; j++) now[j] = pi[j] + AT(E, 0, j);
            } else
                for (int64_t j = 0; j < K; j++) {
                    double most = best[0] + A[j];
                    int32_t which = 0;
                    for (int64_t i = 1; i < K; i++) {
                        double way = best[i] + A[i * K + j];
                        if (way > most) { most = way; which = (int32_t)i; }
                    }
                    now[j] = most + AT(E, l, j);
                    from[j] = which;
                }
            double *swap = best; best = now; now = swap;
            if (l == filled[b] - 1 && (b == B - 1 || first[b + 1])) {
                int64_t state = 0, c = b, row = l;
                for (int64_t i = 1; i < K; i++) if (best[i] > best[state]) state = i;
                for (;;) {
                    path[row * B + c] = state;
                    if (row == 0 && first[c]) break;
                    state = back[(c * L + row) * K + state];
                    if (row == 0) { c--; row = filled[c] - 1; } else row--;
                }
            }
        }
}
